"""Units, masks, costs, plans and surgery: everything between a dense model and a pruned one."""
