"""A small network for digits, in the form of a scorch model file."""

import torch


class Network(torch.nn.Module):
    def __init__(self, hidden=128):
        super().__init__()
        self.hidden = torch.nn.Linear(64, hidden)
        self.output = torch.nn.Linear(hidden, 10)

    def forward(self, input):
        return [self.output(torch.relu(self.hidden(input[0])))]

    def __call__(self, input):
        return self.forward(input)


class Socket:
    def __init__(self, model):
        self.model = model
        self.trainable_modules = torch.nn.ModuleList([model.hidden, model.output])

    def criterion(self, pred, target):
        return torch.nn.functional.cross_entropy(pred[0], target[0])

    def metrics(self, pred, target):
        accuracy = (pred[0].argmax(dim=1) == target[0]).float().mean()
        return [accuracy, self.criterion(pred, target)]
