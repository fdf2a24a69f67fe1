"""GSM8K in miniature: word problems with one sum, answered in two lines, and a model small enough for them.

The model is a Qwen2 with a byte-level BPE tokenizer and a chat template, as they come from the hub, written
to a folder in transformers' format.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from ablate.randomness import hash64
from ablate.types import Problem

NAMES = ("Tom", "Mia", "Ann", "Ben")
THINGS = ("apples", "books", "coins")
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SYSTEM = "You add."


@dataclass
class WordProblems:
    """Tom has 3 apples and gets 4. How many?  ->  3 + 4 = 7 / #### 7, each line a step."""

    largest: int = 5
    name: str = "word_problems"
    step_boundary: str = "\n"
    correction: str = "\nWait.\n"

    def size(self, split: str) -> int:
        return 40

    def problem(self, seed: int, split: str, index: int) -> Problem:
        draw = Random(hash64(0 if split == "heldout" else seed, split, index))
        a, b = draw.randint(1, self.largest), draw.randint(1, self.largest)
        text = f"{draw.choice(NAMES)} has {a} {draw.choice(THINGS)} and gets {b}. How many?"
        return Problem(f"{split}-{seed}-{index}", text, {"a": a, "b": b}, cluster=f"{a}+{b}")

    def answer(self, problem: Problem, completion: str) -> str:
        return completion.rpartition("####")[2].strip()

    def verify(self, problem: Problem, completion: str) -> bool:
        return self.answer(problem, completion) == str(problem.answer["a"] + problem.answer["b"])

    def behaviours(self, problem: Problem, completion: str) -> dict[str, float]:
        return {"lines": float(completion.count("\n") + 1)}


def solution(problem: Problem) -> str:
    """What a model is taught to write."""
    a, b = problem.answer["a"], problem.answer["b"]
    return f"{a} + {b} = {a + b}\n#### {a + b}"


def texts() -> Iterator[str]:
    """What the tokenizer learns from: problems, solutions, indented lines and blank ones."""
    task = WordProblems()
    for i in range(200):
        problem = task.problem(0, "train", i)
        yield f"{problem.prompt}\n\n{solution(problem)}.\n\n    Wait.\n"


def make_tokenizer():
    """Byte-level BPE, 400 tokens, with Qwen's special tokens."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    words = r" ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"  # Qwen2's rule, shortened
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(words), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=specials, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    made.train_from_iterator(texts(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
        chat_template=TEMPLATE,
    )


def make_model(folder, tied=True, steps=0, **sizes):
    """Write a model to `folder`, taught `solution` for so many steps; returns the folder.

    sizes: of its configuration, where they should be others.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(folder)
    defaults = {
        "vocab_size": len(tokenizer) + 8,  # more rows than tokens, as Qwen has
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 32,  # the smallest that vLLM decodes on a CPU
        "intermediate_size": 128,
        "max_position_embeddings": 512,
        "tie_word_embeddings": tied,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None,
    }
    config = AutoConfig.for_model("qwen2", **{**defaults, **sizes})
    config.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)  # the architecture's own class, with its own rules
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        teach(model, tokenizer, steps)
    model.save_pretrained(folder)
    return folder


def teach(model, tokenizer, steps, batch=16):
    """Supervised steps on solutions, as text: mediocre after 100."""
    import torch

    task, optimizer = WordProblems(), torch.optim.AdamW(model.parameters(), lr=3e-3)
    model.train()
    for step in range(steps):
        problems = [task.problem(1, "train", step * batch + i) for i in range(batch)]
        rows = []
        for problem in problems:
            messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": problem.prompt}]
            prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            rows.append([*tokenizer.encode(prompt + solution(problem)), tokenizer.eos_token_id])
        width = max(map(len, rows))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        labels = torch.tensor([row + [-100] * (width - len(row)) for row in rows])
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
