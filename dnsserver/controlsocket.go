package dnsserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
)

// controlSocket is where a server's own control is, under its state directory.
const controlSocket = "control.sock"

// maxSocketPath is how long the path of a unix socket may be (unix(7): 108 octets with the last, which is 0).
const maxSocketPath = 107

// ControlPath is the path of the control socket of the server whose state is in a directory.
func ControlPath(stateDir string) string { return filepath.Join(stateDir, controlSocket) }

// DialControl connects to the server whose state is in a directory, however long its path is.
func DialControl(ctx context.Context, stateDir string) (net.Conn, error) {
	path, release, err := socketPath(stateDir)
	if err != nil {
		return nil, err
	}
	defer release()
	return (&net.Dialer{}).DialContext(ctx, "unix", path)
}

// listenControl takes the place of what is left of an earlier process's socket. Only the user of this process may connect.
func listenControl(stateDir string) (net.Listener, error) {
	if err := os.Remove(ControlPath(stateDir)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("removing an old control socket: %w", err)
	}
	path, release, err := socketPath(stateDir)
	if err != nil {
		return nil, err
	}
	defer release()
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listening for control: %w", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // by a path that is good no more
	if err := os.Chmod(ControlPath(stateDir), 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("protecting the control socket: %w", err), l.Close())
	}
	return l, nil
}

// socketPath returns a path of the control socket that is short enough for bind(2) and connect(2), good until release: its
// own, or one by way of a descriptor of the directory.
func socketPath(stateDir string) (path string, release func(), err error) {
	if path := ControlPath(stateDir); len(path) <= maxSocketPath {
		return path, func() {}, nil
	}
	folder, err := os.Open(stateDir)
	if err != nil {
		return "", nil, err
	}
	path = fmt.Sprintf("/proc/self/fd/%d/%s", folder.Fd(), controlSocket)
	if _, err := os.Stat(filepath.Dir(path)); err != nil {
		return "", nil, errors.Join(fmt.Errorf("the path %s has more than %d octets, and there is no /proc/self/fd: choose a shorter state directory: %w",
			ControlPath(stateDir), maxSocketPath, err), folder.Close())
	}
	return path, func() { _ = folder.Close() }, nil
}
