"""General chat prompts for a drafter to learn from: every way to ask, about every topic; JSON lines."""

import json
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

for number, (topic, way) in enumerate(product(TOPICS, WAYS)):
    print(json.dumps({"id": f"general/{number}", "question": way.format(topic)}))
