//! FlareDB's simulator: the real core in a world made from a seed.
