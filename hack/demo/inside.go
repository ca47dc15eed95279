//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fingerpost-dns/fingerpost/hack/estate"
)

// insideArgument, with settings as JSON behind it, makes this program the inner process.
const insideArgument = "inside"

// errInterrupted ends a run that was told to end.
var errInterrupted = errors.New("interrupted; nothing is left behind")

// stayWord is what the inner process says before it goes on without the outer one.
const stayWord = "stay"

// runInside starts the inner process and returns when it has ended, or when it stays. The end of ctx ends it, and then
// the folder of the run is removed. It is left for its logs if the inner process fails.
func (s settings) runInside(ctx context.Context) (stays bool, err error) {
	arg, err := json.Marshal(s)
	if err != nil {
		return false, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	theirs := os.NewFile(uintptr(pair[1]), "to the outer process")
	ours, err := connection(pair[0])
	if err != nil {
		theirs.Close()
		return false, err
	}
	defer ours.Close()
	cmd := estate.Self(s.Private, insideArgument, string(arg))
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = os.Stdout, os.Stderr, []*os.File{theirs}
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		return false, err
	}
	defer context.AfterFunc(ctx, func() { _ = ours.CloseWrite() })() // fails only where the other end is gone already
	if word, err := io.ReadAll(ours); err == nil && string(word) == stayWord {
		return true, cmd.Process.Release()
	}
	switch err := cmd.Wait(); {
	case ctx.Err() != nil:
		return false, errors.Join(errInterrupted, os.RemoveAll(s.Dir))
	case err != nil:
		return false, fmt.Errorf("the demo did not get to its end; logs are in %s", filepath.Join(s.Dir, "logs"))
	}
	return false, nil
}

// connection takes over one end of a socket pair.
func connection(fd int) (*net.UnixConn, error) {
	file := os.NewFile(uintptr(fd), "socket pair")
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, err
	}
	c, is := conn.(*net.UnixConn)
	if !is {
		return nil, errors.Join(fmt.Errorf("descriptor %d is not a unix socket", fd), conn.Close())
	}
	return c, nil
}

// inside is the inner process. It ends when the outer one does, or when it is told to; what it has started ends before
// it, and the folder of the run is gone unless the story failed.
func inside(ctx context.Context, arg string) (err error) {
	var s settings
	if err := json.Unmarshal([]byte(arg), &s); err != nil {
		return fmt.Errorf("reading settings: %w", err)
	}
	const outerDescriptor = 3 // the first of ExtraFiles
	outer, err := connection(outerDescriptor)
	if err != nil {
		return err
	}
	defer outer.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		if _, err := outer.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) { // closed: by us, to stay
			cancel()
		}
	}()
	if s.Private {
		if err := estate.RaiseLoopback(); err != nil {
			return err
		}
	}
	locked, err := lock(s.Dir)
	if err != nil {
		return err
	}
	defer locked.Close()
	e, err := estate.New(ctx, estate.Options{
		Programs: s.Programs, Dir: s.Dir, ApexNamespaces: []string{apexNamespace},
		LeaseDuration: leaseDuration, RenewDeadline: 3 * time.Second, RetryPeriod: time.Second,
	})
	if err != nil {
		return err
	}
	err = tell(e, s, newTerminal(os.Stdout))
	if err == nil && s.Stay {
		e.Tolerate()
		if err = detach(outer, e.Path("logs", "demo.log")); err == nil {
			<-ctx.Done()
		}
	}
	if ctx.Err() != nil {
		err = nil // nobody waits for the end of the story
	}
	if failed := errors.Join(err, e.Stop()); failed != nil {
		return failed
	}
	return os.RemoveAll(s.Dir)
}

// detach lets go of the outer process and of its terminal.
func detach(outer io.WriteCloser, log string) error {
	file, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer file.Close()
	for _, fd := range []int{unix.Stdout, unix.Stderr} {
		if err := unix.Dup3(int(file.Fd()), fd, 0); err != nil {
			return fmt.Errorf("redirecting output to %s: %w", log, err)
		}
	}
	if _, err := io.WriteString(outer, stayWord); err != nil {
		return fmt.Errorf("letting go of the terminal: %w", err)
	}
	return outer.Close()
}

// lockFile is in the folder of a run. The inner process holds a POSIX lock on it, of which the kernel knows the holder.
const lockFile = "lock"

// lock takes the lock of a folder until the file is closed or this process ends.
func lock(dir string) (*os.File, error) {
	file, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.FcntlFlock(file.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		file.Close()
		return nil, fmt.Errorf("locking %s: %w", file.Name(), err)
	}
	return file, nil
}

// lockHolder returns the process that has the lock of a folder, 0 if none has.
func lockHolder(dir string) (pid int, err error) {
	file, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer file.Close()
	state := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(file.Fd(), unix.F_GETLK, &state); err != nil {
		return 0, fmt.Errorf("asking for the holder of %s: %w", file.Name(), err)
	}
	if state.Type == unix.F_UNLCK {
		return 0, nil
	}
	return int(state.Pid), nil
}

// awaitUnlocked returns when nobody has the lock of a folder.
func awaitUnlocked(ctx context.Context, dir string) error {
	retry := time.NewTicker(20 * time.Millisecond)
	defer retry.Stop()
	for {
		if pid, err := lockHolder(dir); err != nil || pid == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-retry.C:
		}
	}
}
