//go:build unix && !linux

package process

import "syscall"

// Other systems than Linux have no signal for a parent's death: there, a killed parent leaves the processes behind.
func ownGroupAndEndWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
