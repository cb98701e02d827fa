# /// script
# requires-python = ">=3.11"
# dependencies = []
# ///
"""General chat prompts, every way to ask about every topic, as JSON lines.

python general_prompts.py train prints those to learn from, held_out those about topics that are kept apart.
"""

import json
import sys
from itertools import product

WAYS = (
    "Explain {} to a child.",
    "Write a short story about {}.",
    "List five facts about {}.",
    "What should a beginner know about {}?",
    "Write a friendly email to a colleague about {}.",
    "Give three tips on {} and say why they help.",
)
TOPICS = (
    *("the moon", "bread baking", "photosynthesis", "chess", "learning to swim", "trains", "volcanoes"),
    *("saving money", "honey bees", "the French Revolution", "keeping a diary", "rainbows", "gardening"),
    *("computer programming", "healthy sleep", "sailing", "dinosaurs", "public speaking", "coffee"),
    *("the water cycle", "job interviews", "painting", "electric cars", "whales", "time management"),
    *("the human heart", "camping", "black holes", "learning a language", "recycling", "bridges"),
    *("jazz", "penguins", "planning a trip", "the printing press", "running", "earthquakes", "robots"),
    *("writing poems", "cheese"),
)

NUM_HELD_OUT = 6
"""Of the topics, the last ones."""
PARTS = {
    "train": range(len(TOPICS) - NUM_HELD_OUT),
    "held_out": range(len(TOPICS) - NUM_HELD_OUT, len(TOPICS)),
}

if sys.argv[1:] not in (["train"], ["held_out"]):
    sys.exit(f"error: part={' '.join(sys.argv[1:])!r}: not known. Fix: give train or held_out.")
for number, (topic, way) in enumerate(product(TOPICS, WAYS)):
    if number // len(WAYS) in PARTS[sys.argv[1]]:
        print(json.dumps({"id": f"general/{number}", "question": way.format(topic)}))
