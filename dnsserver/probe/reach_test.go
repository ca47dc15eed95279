package probe

import (
	"net/netip"
	"testing"

	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
)

func TestReach(t *testing.T) {
	byDefault := DenyByDefault(netip.MustParseAddr("::ffff:10.0.0.53"), netip.MustParseAddr("2001:db8::53"))
	stated := Deny(netip.MustParsePrefix("10.8.0.0/13"), netip.MustParsePrefix("::ffff:192.0.2.0/120"), netip.MustParsePrefix("fd00::1/8"))
	from := func(d *steeringpb.Datacenter) Reach {
		r, err := ReachFrom(d, netip.MustParseAddr("10.0.0.53"))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	for name, c := range map[string]struct {
		reach   Reach
		denied  []string
		allowed []string
	}{
		"a datacenter that is not known denies the default": {from(nil), []string{"127.0.0.1", "10.0.0.53"}, []string{"10.0.0.54"}},
		"so does one that states nothing, and what it was told": {from(&steeringpb.Datacenter{DefaultDenied: true, DeniedNetworks: []string{"10.9.9.9/32"}}),
			[]string{"127.0.0.1", "10.0.0.53", "10.9.9.9"}, []string{"10.0.0.54"}},
		"one that states nothing at all denies nothing": {from(&steeringpb.Datacenter{}), nil, []string{"127.0.0.1", "10.0.0.53"}},
		"one that states networks denies them alone": {from(&steeringpb.Datacenter{DeniedNetworks: []string{"169.254.0.0/16"}}),
			[]string{"169.254.169.254"}, []string{"127.0.0.1", "10.0.0.53"}},
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
	if _, err := ReachFrom(&steeringpb.Datacenter{DeniedNetworks: []string{"x"}}); err == nil {
		t.Error("x is a network")
	}
	if !(Reach{}).Denies(netip.Addr{}) {
		t.Error("no address is allowed")
	}
}
