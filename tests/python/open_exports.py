# SPDX-License-Identifier: Apache-2.0
#
# open_exports.py PROGRAM LOGITS GOLDEN MODEL: transformers, peft and bitsandbytes open what `pesc convert` writes and
# compute the logits that the reference cases hold, or the program LOGITS prints.
#
# Exit status 77 where a package is missing.

import importlib
import os
import subprocess
import sys
import tempfile

for package in ("torch", "transformers", "peft", "bitsandbytes", "safetensors"):
    try:
        importlib.import_module(package)
    except ImportError as error:
        print(f"skipped: {package}: {error}")
        sys.exit(77)

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

program, logits_program, golden, single_file = sys.argv[1:5]
folder = tempfile.mkdtemp(prefix="pesc-python-")
failures = 0


def check(name, found, expected, tolerance):
    global failures
    error = ((found - expected).abs().max() / expected.abs().max()).item()
    passed = error <= tolerance
    failures += not passed
    print(f"{'pass' if passed else 'FAIL'}  {name}  {error:.3g} ({tolerance:g})", flush=True)


def convert(model, to, name, *options):
    out = os.path.join(folder, name)
    subprocess.run([program, "convert", "--model", model, "--to", to, out, *options], check=True)
    return out


def opened(path, **options):
    model, about = AutoModelForCausalLM.from_pretrained(
        path, attn_implementation="eager", output_loading_info=True, **options
    )
    wrong = {key: value for key, value in about.items() if value}
    if wrong:
        global failures
        failures += 1
        print(f"FAIL  {path}: {wrong}")
    model.eval()
    # On some processors bitsandbytes takes another path where it does not train, one that not every size suits.
    for module in model.modules():
        if type(module).__name__ == "Linear4bit":
            module.train()
    return model


def in_float(model):
    for module in model.modules():
        if not list(module.children()) and type(module).__name__ != "Linear4bit":
            module.to(torch.float32)
    return model


def logits(model, ids):
    with torch.no_grad():
        return model(input_ids=ids).logits.float()


def printed_logits(model, ids, adapter=""):
    text = subprocess.run(
        [logits_program, model, adapter, *map(str, ids[0].tolist())], check=True, capture_output=True, text=True
    ).stdout
    rows = [[float(x) for x in line.split()] for line in text.splitlines()]
    return torch.tensor(rows)[None]


def masked(case, values):
    return values if "attention_mask" not in case else values[case["attention_mask"] != 0]


# Dense models, numbers and 4 bits.
for name in sorted(os.listdir(f"{golden}/llama")):
    case = load_file(f"{golden}/llama/{name}/reference.safetensors")
    ids = case["input_ids"]
    expected = case["expected.logits"].float()
    for shard in ([], ["--max-shard-size", "20000"]):
        path = convert(f"{golden}/llama/{name}", "hf", f"{name}-hf{len(shard)}", *shard)
        check(f"llama/{name} hf {' '.join(shard)}", masked(case, logits(opened(path, dtype=torch.float32), ids)),
              masked(case, expected), 1e-4)
    # bitsandbytes decodes rows that are shorter than a block wrongly on some processors.
    if AutoConfig.from_pretrained(path).hidden_size < 64:
        continue
    path = convert(f"{golden}/llama/{name}", "hf-4bit", f"{name}-4bit")
    ids = ids[:1, :7]
    check(f"llama/{name} hf-4bit", logits(in_float(opened(path)), ids), printed_logits(path, ids),
          1e-4 if AutoConfig.from_pretrained(path).dtype == torch.float32 else 2e-2)

# 4-bit checkpoints: kept, and decoded.
for name in sorted(os.listdir(f"{golden}/bnb_checkpoint")):
    case = load_file(f"{golden}/bnb_checkpoint/{name}/reference.safetensors")
    kept = opened(convert(f"{golden}/bnb_checkpoint/{name}", "hf-4bit", f"{name}-4bit"))
    kinds = {type(m).__name__ for n, m in kept.named_modules() if n.endswith("_proj")}
    check(f"bnb_checkpoint/{name} hf-4bit {kinds}", logits(in_float(kept), case["input_ids"]), case["expected.logits"], 1e-4)
    decoded = opened(convert(f"{golden}/bnb_checkpoint/{name}", "hf", f"{name}-hf"), dtype=torch.float32)
    check(f"bnb_checkpoint/{name} hf", logits(decoded, case["input_ids"]), case["expected.logits"], 1e-2)

# Adapters: merged, and as an adapter again.
for name in sorted(os.listdir(f"{golden}/lora_model")):
    case = load_file(f"{golden}/lora_model/{name}/reference.safetensors")
    base, adapter = (f"{golden}/lora_model/{name}/{part}" for part in ("base", "adapter"))
    merged = convert(base, "hf", f"{name}-merged", "--adapter", adapter)
    check(f"lora_model/{name} hf", logits(opened(merged), case["input_ids"]), case["expected.logits"], 1e-4)
    alone = convert(base, "peft", f"{name}-peft", "--adapter", adapter)
    tuned = PeftModel.from_pretrained(opened(base), alone).eval()
    check(f"lora_model/{name} peft", logits(tuned, case["input_ids"]), case["expected.logits"], 1e-4)

# A file whose rows lie in the order of rotary neighbours, its low-rank updates included.
ids = torch.tensor([[1, 403, 407, 261, 378, 432, 383, 286, 261, 376]])
dense = convert(single_file, "hf", "single-hf")
check("llama2.c file hf", logits(opened(dense), ids), printed_logits(single_file, ids), 1e-4)
four = convert(single_file, "hf-4bit", "single-4bit")
check("llama2.c file hf-4bit", logits(in_float(opened(four)), ids), printed_logits(four, ids), 1e-4)
crafted = os.path.join(folder, "crafted")
subprocess.run([program, "craft", "--model", single_file, "--out", crafted, "--experts", "0", "--quiet"], check=True)
adapter = convert(crafted, "peft", "random-adapter")
torch.manual_seed(0)
updates = load_file(f"{adapter}/adapter_model.safetensors")
updates = {name: torch.randn_like(value) * 0.1 for name, value in updates.items()}
save_file(updates, f"{adapter}/adapter_model.safetensors")
expected = logits(PeftModel.from_pretrained(opened(dense), adapter).eval(), ids)
check("llama2.c file with an adapter", printed_logits(single_file, ids, adapter), expected, 1e-4)
again = convert(single_file, "peft", "adapter-again", "--adapter", adapter)
check("llama2.c file peft", logits(PeftModel.from_pretrained(opened(dense), again).eval(), ids), expected, 1e-4)
merged = convert(single_file, "hf", "single-merged", "--adapter", adapter)
check("llama2.c file hf, merged", logits(opened(merged), ids), expected, 1e-4)

subprocess.run(["rm", "-r", folder])
print(f"{failures} failed")
sys.exit(failures > 0)
