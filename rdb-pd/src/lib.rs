//! FlareDB's placement: the catalog of namespaces, regions and nodes, and the rules that place them.
