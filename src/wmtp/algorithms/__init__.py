"""How a training algorithm weighs the tokens that heads predict, and which models it needs for that."""
