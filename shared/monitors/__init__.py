"""The enforcement engine: rules over text that flows. Inference, tools and policy judge with the same one."""
