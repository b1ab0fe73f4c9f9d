"""The contenders: each trains a case with progress, metrics, TensorBoard and checkpoints, as its own manual shows it.

Everybody shows the loss on a progress bar, writes it to TensorBoard every 50 steps, and after each epoch measures loss
and accuracy on the validation split, writes them with the mean training loss to TensorBoard, saves model and optimizer,
and saves the model once more where the validation loss is the best so far.
"""
