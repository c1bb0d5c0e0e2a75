"""Random forgetting of handwritten digits, measured by two suites."""

import torch
from lightning import Trainer

import mu
from callbacks import Accuracy, Membership, ResultsWriter
from mu.backbones import Classifier
from mu.core import OneCycle
from mu.methods import SalUn, Train
from tasks import Digits, RandomFraction

task = Digits(RandomFraction(0.1))
backbone = Classifier("resnet8_cifar", in_channels=1, mean=[0.3053], std=[0.3760], init_seed=0)

Trainer(max_epochs=30).fit(Train(backbone, scheduler=OneCycle()), datamodule=task)

method = SalUn(backbone, optimizer=lambda params: torch.optim.SGD(params, lr=0.02, momentum=0.9))
trainer = Trainer(
    max_epochs=5,
    default_root_dir="runs/salun_python",
    callbacks=[Accuracy(), Membership(), ResultsWriter()],
)
trainer.fit(method, datamodule=task)
trainer.test(method, datamodule=task)  # UA, RA, TA, MIA; runs/salun_python/results.json

unlearned = mu.load(trainer.checkpoint_callback.best_model_path).served()
