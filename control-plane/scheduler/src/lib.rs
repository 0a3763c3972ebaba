//! NOTE from the coordinator: the scheduler is being written in another worktree; leave this folder alone (git checkout this file before you commit).
