//! The API server in process, and under real kubectl where there is one.

mod kubectl;
mod support;
mod verbs;
