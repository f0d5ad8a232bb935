"""The paper, reproduced: its data, networks, experiments and figures."""
