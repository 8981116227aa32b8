"""Methods that learn their masks: from mask logits trained under a budget to the masks of a plan."""
