"""Other systems' interfaces, mapped to Weft: each makes an experiment that runs through Weft's own loop."""
