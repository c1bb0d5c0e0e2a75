"""Forgetting of invented authors by a small language model."""

import torch
from lightning import Trainer

from mu.backbones import CausalLM
from mu.methods import NPO
from tasks import Authors

# or a transformers folder, or a hub id; lora=LoRA(r=16) trains adapters
backbone = CausalLM("embedded:authors")
method = NPO(backbone, optimizer=lambda params: torch.optim.AdamW(params, lr=6e-4))
task = Authors("forget10", batch_size=20)
trainer = Trainer(max_epochs=10, accelerator="cpu")
trainer.fit(method, datamodule=task)

question = task.sets["forget"].rows[0]["question"]
prompt = task.encoder.prompt(question)
print(question, backbone.eval().generate([prompt], max_new_tokens=40))
