//go:build linux

package main

import (
	"net"
	"net/http"
	"net/netip"
	"os"
	"testing"
	"time"
)

func TestATargetKnowsWhichProcessWasToldFirstThatItFails(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := netip.MustParseAddrPort(l.Addr().String()).Port()
	l.Close()
	all, err := startTargets(port)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := all.stop(); err != nil {
			t.Error(err)
		}
	}()
	get := func(a netip.Addr) int {
		response, err := http.Get("http://" + netip.AddrPortFrom(a, port).String())
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		return response.StatusCode
	}
	good, bad := netip.MustParseAddr("127.9.0.1"), netip.MustParseAddr("127.9.0.2")
	f := all.fail(bad, []int{os.Getpid()})
	if _, err := f.decided([]int{os.Getpid()}); err == nil {
		t.Error("nobody has asked, and still something is decided")
	}
	began := time.Now()
	if a, b := get(good), get(bad); a != http.StatusOK || b != http.StatusServiceUnavailable {
		t.Errorf("the targets answer %d and %d", a, b)
	}
	first, err := f.decided([]int{os.Getpid()})
	if err != nil || first.Before(began) || first.After(time.Now()) {
		t.Errorf("decided at %v, %v", first, err)
	}
	get(bad)
	if again, err := f.decided([]int{os.Getpid()}); err != nil || !again.Equal(first) {
		t.Errorf("decided at %v, %v, and before at %v", again, err, first)
	}
}
