//go:build unix && !linux

package resolver

import "syscall"

// endWithParent: other systems than Linux have no signal for a parent's death.
func endWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
