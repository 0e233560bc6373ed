//! Nothing: the guests are the files in `examples/`, each a component of its own. A package needs a
//! library or a program.
