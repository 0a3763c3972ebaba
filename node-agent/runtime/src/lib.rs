//! containerd: images, containers, logs and exec.
