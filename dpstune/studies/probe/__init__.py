"""How far fine-tuning moved a model's representations, and what a linear probe still reads off them."""
