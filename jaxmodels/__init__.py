"""jaxmodels: research methods in JAX and Flax on one protocol.

import jaxmodels as jm
method = jm.classifier(jm.vit('b16'), jm.res_tuning(rank=10), num_classes=100)

Whole families of methods are packages of their own, imported when they are asked for: jm.graphs, jm.outliers,
jm.reasoning, jm.recommendation.
"""

import importlib
from typing import Any

from jaxmodels.backbones.backbone import Backbone
from jaxmodels.backbones.convnext import convnext
from jaxmodels.backbones.swin import swin
from jaxmodels.backbones.vit import vit
from jaxmodels.data.batches import batches, eval_batches
from jaxmodels.method import Aux, Mean, Method
from jaxmodels.training.evaluate import evaluate
from jaxmodels.training.fit import fit
from jaxmodels.training.memory import reuse_freed_memory
from jaxmodels.training.mesh import local_rows, make_mesh
from jaxmodels.training.optimizer import adamw, sgd
from jaxmodels.tuning.adapter import adapter, adaptformer
from jaxmodels.tuning.classifier import classifier
from jaxmodels.tuning.fact import fact
from jaxmodels.tuning.heads import linear_head, mlp_head
from jaxmodels.tuning.lora import lora
from jaxmodels.tuning.merging import merge_tuner
from jaxmodels.tuning.multitask import multitask, stack_tasks
from jaxmodels.tuning.plain import bitfit, full, linear, partial
from jaxmodels.tuning.res_adapter import res_adapter
from jaxmodels.tuning.res_bypass import res_tuning_bypass
from jaxmodels.tuning.res_prefix import res_prefix
from jaxmodels.tuning.res_prompt import res_prompt
from jaxmodels.tuning.res_tuning import res_tuning
from jaxmodels.tuning.serving import serve
from jaxmodels.tuning.snell import snell
from jaxmodels.tuning.snella import snella
from jaxmodels.tuning.ssf import ssf
from jaxmodels.tuning.tuner import Tuner, chain
from jaxmodels.tuning.tuner_file import load_tuner, save_tuner
from jaxmodels.tuning.vpt import vpt
from jaxmodels.weights.load import load as load_weights

__all__ = [
    "Aux",
    "Backbone",
    "Mean",
    "Method",
    "Tuner",
    "adamw",
    "adapter",
    "adaptformer",
    "batches",
    "bitfit",
    "chain",
    "classifier",
    "convnext",
    "eval_batches",
    "evaluate",
    "fact",
    "fit",
    "full",
    "linear",
    "linear_head",
    "load_tuner",
    "load_weights",
    "local_rows",
    "lora",
    "make_mesh",
    "merge_tuner",
    "mlp_head",
    "multitask",
    "partial",
    "res_adapter",
    "res_prefix",
    "res_prompt",
    "res_tuning",
    "res_tuning_bypass",
    "reuse_freed_memory",
    "save_tuner",
    "serve",
    "sgd",
    "snell",
    "snella",
    "ssf",
    "stack_tasks",
    "swin",
    "vit",
    "vpt",
]

FAMILIES = ("graphs", "outliers", "reasoning", "recommendation")


def __getattr__(name: str) -> Any:
    if name in FAMILIES:
        return importlib.import_module(f"jaxmodels.{name}")
    raise AttributeError(f"module 'jaxmodels' has no attribute '{name}'")
