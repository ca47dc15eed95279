package resolver

import "syscall"

// endWithParent has the kernel end the engine when the agent is gone: nobody would start another one beside it.
func endWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
