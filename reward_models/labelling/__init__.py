"""A page on which a person compares rollouts: `store` keeps the answers, `scenes` draws, `server` serves."""
