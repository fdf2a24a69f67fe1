"""What other libraries and papers call a key or a choice, for the answer to someone who tries it."""

KEYS = {
    "learning_rate": "learner.lr",
    "beta": "learner.kl",
    "kl_coef": "learner.kl",
    "epsilon": "learner.clip_low",
    "epsilon_high": "learner.clip_high",
    "max_tokens": "sampling.cap",
    "max_new_tokens": "sampling.cap",
    "max_completion_length": "sampling.cap",
    "num_generations": "strategy.source.n",
}
CHOICES = {
    "task": {"gsm8k": "math"},
    "strategy": {
        **dict.fromkeys(("grpo", "ppo", "rloo", "rlvr", "reinforce", "dapo"), "guess_check"),
        **dict.fromkeys(("prm", "vineppo", "math_shepherd"), "process_rewards"),
    },
}
