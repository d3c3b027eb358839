//! A small tree with each construct, and real ones.

mod real;
