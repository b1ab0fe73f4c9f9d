from weft.config.experiment import Experiment
def check_experiment(experiment, doubtful=()): return []
