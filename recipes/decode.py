# /// script
# requires-python = ">=3.11"
# dependencies = ["t3d"]
#
# [tool.uv.sources]
# t3d = { path = ".." }
# ///
"""Decode a handful of prompts; of a checkout, with nothing installed but uv:

uv run recipes/decode.py [MODEL [PROMPT ...]]

MODEL is a folder, a hub id or the bundled teacher; it decodes as it says of itself.
"""

import sys
from dataclasses import replace

from t3d import LLM

PROMPTS = (
    "Make 12 with 4 digits, no 5, use a 7.",
    "Make 23 with 4 digits, no 5, use a 7.",
    "Make 31 with 5 digits, no 4, use a 9.",
)

model, *prompts = sys.argv[1:] or ["mini"]
llm = LLM(model)
params = replace(llm.default_params, max_new_tokens=64, temperature=0.0)
asked = prompts or PROMPTS
chats = [[{"role": "user", "content": prompt}] for prompt in asked]
for prompt, answer in zip(asked, llm.chat(chats, params, progress=False), strict=True):
    print(f"> {prompt}\n{answer.text}\n  {answer.visible_length} tokens, {answer.num_forwards} forwards\n")
