package controllers

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"k8s.io/utils/ptr"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/dnsserver/control/controlpb"
)

// numbered makes secrets 1, 2, 3 and so on.
func numbered() func() []byte {
	n := byte(0)
	return func() []byte {
		n++
		return bytes.Repeat([]byte{n}, cookieSecretSize)
	}
}

// inNumbers is what servers get, such as "1 2": 1 makes cookies, 2 is accepted too.
func inNumbers(c cookieSecrets) string {
	var all []string
	for _, s := range c.inOrder() {
		all = append(all, fmt.Sprint(s[0]))
	}
	return strings.Join(all, " ")
}

func TestCookieSecretsFollowEachOther(t *testing.T) {
	const day = 24 * time.Hour
	start := time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)
	type look struct {
		at         time.Duration
		everywhere bool
		want       string
	}
	for rule, looks := range map[string][]look{
		"the first makes cookies at once":                        {{0, false, "1"}},
		"for a day nothing changes, whoever has it":              {{0, false, "1"}, {time.Hour, true, "1"}, {day - 1, true, "1"}},
		"the next is accepted first":                             {{0, false, "1"}, {day, true, "1 2"}},
		"it makes cookies when all servers have it":              {{0, false, "1"}, {day, false, "1 2"}, {day + time.Minute, false, "1 2"}, {day + 2*time.Minute, true, "2 1"}},
		"or after an hour, if one is away":                       {{0, false, "1"}, {day, false, "1 2"}, {day + time.Hour - 1, false, "1 2"}, {day + time.Hour, false, "2 1"}},
		"the one before is accepted for an hour more":            {{0, false, "1"}, {day, false, "1 2"}, {day + time.Minute, true, "2 1"}, {day + time.Hour, true, "2 1"}, {day + time.Hour + time.Minute, true, "2"}},
		"its day counts from then":                               {{0, false, "1"}, {day, false, "1 2"}, {day + time.Hour, false, "2 1"}, {2 * day, true, "2"}, {2*day + time.Hour, true, "2 3"}},
		"after a long pause of the manager all goes on in order": {{0, false, "1"}, {30 * day, true, "1 2"}, {60 * day, false, "2 1"}, {90 * day, false, "2 3"}},
	} {
		t.Run(rule, func(t *testing.T) {
			fresh := numbered()
			var c cookieSecrets
			for _, l := range looks {
				now := start.Add(l.at)
				before := c
				var steps string
				c, steps = c.advance(now, day, l.everywhere, fresh)
				if got := inNumbers(c); got != l.want {
					t.Fatalf("after %s they are %q, want %q", l.at, got, l.want)
				}
				if (steps != "") == cmp.Equal(before, c, cmp.AllowUnexported(cookieSecrets{})) {
					t.Errorf("after %s the steps are %q", l.at, steps)
				}
				data := map[string][]byte{"others": []byte("stay")}
				c.write(data)
				if diff := cmp.Diff(c, parseCookieSecrets(data, now), cmp.AllowUnexported(cookieSecrets{}), cmp.Comparer(func(a, b time.Time) bool { return a.Sub(b).Abs() < time.Second })); diff != "" {
					t.Errorf("written and read (-want +got):\n%s", diff)
				}
				again, steps := c.advance(now, day, false, fresh)
				if steps != "" {
					t.Errorf("after %s another look takes the steps %q to %q", l.at, steps, inNumbers(again))
				}
				if due := c.due(day); !due.After(now) {
					t.Errorf("after %s the next look is due at once", l.at)
				}
			}
		})
	}
}

// TestEveryCookieIsAcceptedEverywhere plays a month at servers that get each change late, by up to
// some minutes: no server ever makes a cookie that another does not accept, for as long as it is good.
func TestEveryCookieIsAcceptedEverywhere(t *testing.T) {
	const servers, step = 5, time.Minute
	now := time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)
	fresh := numbered()
	var c cookieSecrets
	var held [servers]string
	pending := [servers][]string{}
	made := map[string]time.Time{} // when a secret last made a cookie
	changes := 0
	for minute := range 30 * 24 * 60 {
		everywhere := !slices.ContainsFunc(held[:], func(h string) bool { return h != inNumbers(c) })
		next, steps := c.advance(now, 24*time.Hour, everywhere, fresh)
		if c = next; steps != "" {
			changes++
		}
		for i := range held {
			pending[i] = append(pending[i], inNumbers(c))
			if late := (i*7 + minute/60) % 13; len(pending[i]) > late { // minutes
				held[i], pending[i] = pending[i][len(pending[i])-1-late], pending[i][len(pending[i])-late:]
			}
			if signing, _, _ := strings.Cut(held[i], " "); signing != "" {
				made[signing] = now
			}
		}
		for secret, last := range made {
			if now.Sub(last) > cookieLife-15*time.Minute { // what is late may be dropped a little early
				delete(made, secret)
				continue
			}
			for i, h := range held {
				if minute > 60 && !slices.Contains(strings.Fields(h), secret) {
					t.Fatalf("minute %d: server %d has %q, and a cookie of %s is %s old", minute, i, h, secret, now.Sub(last))
				}
			}
		}
		now = now.Add(step)
	}
	if changes < 60 {
		t.Errorf("%d changes in a month", changes)
	}
}

func TestDamagedCookieSecretsAreReplaced(t *testing.T) {
	now := time.Now()
	for name, data := range map[string]map[string][]byte{
		"nothing":             {},
		"a short one":         {"current": []byte("short"), "current-since": []byte("2026-11-22T09:00:00Z")},
		"one without a time":  {"current": make([]byte, 16)},
		"one of another time": {"current": make([]byte, 16), "current-since": []byte("yesterday")},
	} {
		c, steps := parseCookieSecrets(data, now).advance(now, time.Hour, false, numbered())
		if inNumbers(c) != "1" || steps == "" {
			t.Errorf("%s: %q after %q", name, inNumbers(c), steps)
		}
	}
	ahead := []byte(now.Add(1000 * time.Hour).Format(time.RFC3339))
	c := parseCookieSecrets(map[string][]byte{
		"current": make([]byte, 16), "current-since": ahead, "next": make([]byte, 16), "next-since": ahead, "previous": make([]byte, 16), "previous-until": ahead,
	}, now)
	if c.currentSince.After(now) || c.nextSince.After(now) || c.previousEnd.After(now.Add(cookieLife)) {
		t.Errorf("times ahead are believed: %+v", c)
	}
}

func TestSettingsOfAGroup(t *testing.T) {
	secrets := [][]byte{{1}, {2}}
	limits := v1alpha1.ServerLimits{
		ResponsesPerSecond: ptr.To[int32](200), Slip: ptr.To[int32](2), QueriesPerSecond: ptr.To[int32](0), IPv4PrefixLength: ptr.To[int32](24),
		IPv6PrefixLength: ptr.To[int32](56), Exempt: []v1alpha1.CIDR{"10.0.0.0/8"},
	}
	off := limits
	off.Mode = v1alpha1.LimitsOff
	for rule, c := range map[string]struct {
		group v1alpha1.ServerGroup
		want  *controlpb.Settings
	}{
		"private addresses: limits only log": {
			v1alpha1.ServerGroup{Addresses: []v1alpha1.IP{"10.0.0.1"}, MaxUDPSize: ptr.To[int32](4096), Limits: limits, NSID: v1alpha1.SwitchEnabled, Resolvers: []v1alpha1.CIDR{"10.1.0.53/32"}},
			&controlpb.Settings{MaxUdpSize: 4096, Nsid: true, CookieSecrets: secrets, Resolvers: []string{"10.1.0.53/32"}, Transports: &controlpb.Transports{},
				Limits: &controlpb.Limits{LogOnly: true, Responses: 200, Slip: 2, Ipv4Prefix: 24, Ipv6Prefix: 56, Exempt: []string{"10.0.0.0/8"}}},
		},
		"a public address: limits are enforced": {
			v1alpha1.ServerGroup{Addresses: []v1alpha1.IP{"10.0.0.1", "198.51.100.1"}, Limits: limits},
			&controlpb.Settings{CookieSecrets: secrets, Transports: &controlpb.Transports{},
				Limits: &controlpb.Limits{Responses: 200, Slip: 2, Ipv4Prefix: 24, Ipv6Prefix: 56, Exempt: []string{"10.0.0.0/8"}}},
		},
		"limits that are off have no rates; closed transports no ports": {
			v1alpha1.ServerGroup{Limits: off, Transports: v1alpha1.ServerTransports{
				TCP: v1alpha1.TransportClosed, DoT: v1alpha1.DoTTransport{Access: v1alpha1.TransportOpen, Port: 8853},
				DoH: v1alpha1.DoHTransport{Access: v1alpha1.TransportClosed, Port: 443}, HTTPDNS: v1alpha1.HTTPDNSTransport{Access: v1alpha1.TransportOpen, Port: 80},
			}},
			&controlpb.Settings{CookieSecrets: secrets, Transports: &controlpb.Transports{NoTcp: true, DotPort: 8853, HttpdnsPort: 80}},
		},
	} {
		t.Run(rule, func(t *testing.T) {
			got := SettingsMessage(c.group, secrets)
			if !proto.Equal(got, c.want) {
				t.Errorf("(-want +got)\n%s", cmp.Diff(c.want, got, protocmp.Transform()))
			}
		})
	}
}

func TestWhereTheAPIServerIs(t *testing.T) {
	for host, want := range map[string]string{
		"https://10.96.0.1:443":      "[10.96.0.1]",
		"https://[2001:db8::1]:6443": "[2001:db8::1]",
		"10.96.0.1":                  "[10.96.0.1]",
		"https://api.example:6443":   "[]",
		"":                           "[]",
	} {
		if got := fmt.Sprint(apiServerAddresses(host)); got != want {
			t.Errorf("%q is at %s, want %s", host, got, want)
		}
	}
}
