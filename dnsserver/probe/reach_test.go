package probe

import (
	"net/netip"
	"testing"
)

func TestReach(t *testing.T) {
	byDefault := DenyByDefault(netip.MustParseAddr("::ffff:10.0.0.53"), netip.MustParseAddr("2001:db8::53"))
	stated := Deny(netip.MustParsePrefix("10.8.0.0/13"), netip.MustParsePrefix("::ffff:192.0.2.0/120"), netip.MustParsePrefix("fd00::1/8"))
	for name, c := range map[string]struct {
		reach   Reach
		denied  []string
		allowed []string
	}{
		"nothing is denied by nothing": {Reach{}, nil, []string{"127.0.0.1", "::1", "169.254.169.254"}},
		"by default what is on or beside this server is, and its own addresses": {byDefault, []string{
			"127.0.0.1", "127.255.255.255", "0.0.0.0", "0.1.2.3", "169.254.169.254", "224.0.0.1", "239.255.255.255", "255.255.255.255",
			"::", "::1", "fe80::1", "fe80::1%eth0", "febf::1", "ff02::1", "10.0.0.53", "2001:db8::53",
		}, []string{"10.0.0.54", "192.0.2.1", "2001:db8::54", "fd00::1", "fec0::1", "1.0.0.0", "170.0.0.0"}},
		"IPv4 addresses are denied in every IPv6 form": {byDefault, []string{
			"::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::169.254.169.254", "::127.0.0.1", "2002:7f00:1::", "2002:a9fe:a9fe:1::1",
			"::ffff:10.0.0.53", "64:ff9b::10.0.0.53",
		}, []string{"::ffff:10.0.0.54", "64:ff9b::10.0.0.54", "2002:a00:36::1"}},
		"what is stated is all that is denied": {stated,
			[]string{"10.8.0.0", "10.15.255.255", "::ffff:10.9.0.1", "192.0.2.1", "fd12::1"},
			[]string{"10.16.0.0", "127.0.0.1", "::1", "169.254.169.254", "10.0.0.53"}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, a := range c.denied {
				if !c.reach.Denies(netip.MustParseAddr(a)) {
					t.Errorf("%s is allowed", a)
				}
			}
			for _, a := range c.allowed {
				if c.reach.Denies(netip.MustParseAddr(a)) {
					t.Errorf("%s is denied", a)
				}
			}
		})
	}
	if !(Reach{}).Denies(netip.Addr{}) {
		t.Error("no address is allowed")
	}
}
