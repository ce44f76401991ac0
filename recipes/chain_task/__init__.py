"""The quickstart's task: a labelled chain of + - x modulo 10, its corpus and its prompts."""
