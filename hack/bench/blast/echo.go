//go:build linux

package blast

import (
	"fmt"
	"net/netip"
	"runtime"

	"golang.org/x/sys/unix"
)

// Echo sends every datagram back with the bit set that makes a DNS query a response, and does nothing else: no server on
// UDP sockets can take less time. It returns only on errors. It is to be the only thing that its process does.
func Echo(address netip.AddrPort) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	socket, err := open(address, unix.Bind)
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	b := newBatch(64, 1344, true)
	for {
		n, errno := b.receive(socket, unix.MSG_WAITFORONE)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return fmt.Errorf("receiving at %s: %w", address, errno)
		}
		for i := range n {
			b.buffers[i][2] |= 0x80
			b.vectors[i].SetLen(int(b.headers[i].size))
		}
		for sent := 0; sent < n; {
			rest := batch{headers: b.headers[sent:n]}
			k, errno := rest.send(socket, n-sent)
			if errno != 0 {
				break // nobody waits for these
			}
			sent += k
		}
		for i := range n {
			b.vectors[i].SetLen(len(b.buffers[i]))
		}
	}
}
