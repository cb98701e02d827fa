"""Hypothesis strategies shared by tests of several modules: trajectories that foreign formats can hold.

A strategy draws the fields, not the object: the runtime type checker may not run inside a strategy.
"""

from hypothesis import strategies as st

from t3d.tasks.mini.tokenizer import build_tokenizer

TOKENIZER = build_tokenizer(["how many apples are left now?", "so the answer is"])
"""Byte-level: any text without U+FFFD gives the same ids again after decoding and encoding."""
MASK_ID = TOKENIZER.mask_token_id
STOP_IDS = tuple(sorted(TOKENIZER.convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>"])))


def encode(text: str) -> tuple[int, ...]:
    return tuple(TOKENIZER.encode(text, add_special_tokens=False))


def texts(max_size: int = 12):
    """Texts that are tokenised to one or more ordinary tokens; "<" would allow a special token's name."""
    characters = st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd<")
    words = st.sampled_from([" apples", " left", "so", " the", " answer", " 7", "\n"])
    return st.lists(words | characters, min_size=1, max_size=max_size).map("".join)


@st.composite
def step_maps(draw, num_prompt_tokens: int, count: int, block_size: int):
    """Steps with ties that never fall between blocks of the absolute grid; step 1 commits something."""
    step_map, first = [], 1
    for position in range(num_prompt_tokens, num_prompt_tokens + count):
        if position % block_size == 0 and step_map:
            first = max(step_map) + 1
        step_map.append(first + draw(st.integers(0, 3)))
    return tuple(step - min(step_map) + 1 for step in step_map)


@st.composite
def trajectory_fields(draw):
    """A prompt and an answer as text would give them; with a stop, filler up to the block's end or none."""
    block_size = draw(st.integers(1, 8))
    prompt = encode("<|im_start|>user\n" + draw(texts()) + "<|im_end|>\n<|im_start|>assistant\n")
    visible = encode(draw(texts()))
    stops = draw(st.booleans())
    if stops:
        visible += (draw(st.sampled_from(STOP_IDS)),)
    missing = -(len(prompt) + len(visible)) % block_size
    has_filler = stops and draw(st.booleans())
    ordinary = st.integers(0, MASK_ID - 1)
    filler = tuple(draw(st.lists(ordinary, min_size=missing, max_size=missing))) if has_filler else ()
    count = len(visible) + len(filler)
    return {
        "id": draw(st.text(max_size=6)),
        "prompt_ids": prompt,
        "response_ids": visible + filler,
        "step_map": draw(step_maps(len(prompt), count, block_size)),
        "visible_length": len(visible),
        "finish_reason": "stop" if stops else "length",
        "block_size": block_size,
        "mask_token_id": MASK_ID,
        "terminal_complete": (len(prompt) + count) % block_size == 0,
    }
