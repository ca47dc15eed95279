package engine

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// UnboundSocket is the name of Unbound's control socket in its own folder.
const UnboundSocket = "control.sock"

// unbound renders unbound.conf.
func unbound(c *Config, folder Path) *Rendered {
	r := &Rendered{
		Program: "unbound", Args: []string{"-d", "-p", "-c", "unbound.conf"},
		Check: []string{"unbound-checkconf", "unbound.conf"},
	}
	var b strings.Builder
	clause := func(name string) { fmt.Fprintf(&b, "\n%s:\n", name) }
	set := func(key, format string, args ...any) {
		fmt.Fprintf(&b, "  %s: "+format+"\n", append([]any{key}, args...)...)
	}
	yes := func(key string, on bool) {
		if on {
			set(key, "yes")
		} else {
			set(key, "no")
		}
	}
	b.WriteString("# written by resolver-agent: changes are lost\nserver:\n")
	set("directory", `"."`)
	for _, key := range []string{"chroot", "username", "pidfile", "logfile"} {
		set(key, `""`)
	}
	yes("use-syslog", false)
	set("verbosity", "1")
	yes("hide-identity", true)
	yes("hide-version", true)
	yes("ede", true)
	yes("extended-statistics", true)
	yes("statistics-cumulative", true)

	threads := cmp.Or(c.Threads, 1)
	set("num-threads", "%d", threads)
	slabs := 1
	for slabs < threads {
		slabs *= 2
	}
	for _, key := range []string{"msg-cache-slabs", "rrset-cache-slabs", "infra-cache-slabs", "key-cache-slabs"} {
		set(key, "%d", slabs)
	}
	// RRsets take about twice what messages take.
	size := cmp.Or(c.CacheMiB, 64)
	set("msg-cache-size", "%dk", size*1024/3)
	set("rrset-cache-size", "%dk", size*1024*2/3)
	yes("so-reuseport", true)
	// Connections of clients at a time, to each address and thread: those of encrypted transports last.
	set("incoming-num-tcp", "128")
	for _, a := range c.Listen {
		set("interface", "%s", at(a))
	}
	if p := c.ProxyProtocol; p != nil {
		ports := map[uint16]bool{}
		for _, a := range p.Listen {
			set("interface", "%s", at(a))
			if !ports[a.Port()] {
				set("proxy-protocol-port", "%d", a.Port())
			}
			ports[a.Port()] = true
		}
		r.lacks("proxyProtocol.from", "all clients are believed on these ports: let a network policy admit the load balancer alone")
	}
	if t := c.TLS; t != nil {
		port := func(feature, key string, i int, of uint16, first uint16) bool {
			switch {
			case i == 0:
				set(key, "%d", of)
			case of != first:
				r.lacks(feature, "port %d: there is one port for each encrypted transport, %d here", of, first)
				return false
			}
			return true
		}
		for i, a := range t.DoT {
			if port("tls.dot", "tls-port", i, a.Port(), t.DoT[0].Port()) {
				set("interface", "%s", at(a))
			}
		}
		for i, a := range t.DoH {
			if port("tls.doh", "https-port", i, a.Port(), t.DoH[0].Port()) {
				set("interface", "%s", at(a))
			}
		}
	}
	secrets, upstreams := unboundTLS(c, r)
	if secrets != "" {
		set("include", "%s", quoted(unboundTLSFile))
	}
	for _, a := range c.Source {
		set("outgoing-interface", "%s", a)
	}
	set("access-control", "0.0.0.0/0 refuse")
	set("access-control", "::0/0 refuse")
	own := c.own()
	for _, p := range c.allowed() {
		if slices.Contains(own, p) {
			set("access-control", "%s allow_snoop", p) // the agent looks at what is in the cache
		} else {
			set("access-control", "%s allow", p)
		}
	}
	if p := c.ProxyProtocol; p != nil {
		// Who brings a query is looked at as well as who asks.
		for _, from := range p.From {
			set("access-control", "%s allow", from)
		}
	}

	modules := []string{"respip"}
	if c.ECS != nil {
		modules = append(modules, "subnetcache")
	}
	if len(c.TrustAnchors) > 0 {
		modules = append(modules, "validator")
	}
	set("module-config", "%s", quoted(strings.Join(append(modules, "iterator"), " ")))
	set("root-hints", `"root.hints"`)
	for _, a := range c.TrustAnchors {
		set("trust-anchor", "%s", quoted(a.text))
	}
	yes("trust-anchor-signaling", false)
	yes("root-key-sentinel", false)
	asked, local := c.asked(), c.local()
	yes("do-not-query-localhost", !c.LoopbackServers && len(local) == 0)
	if asked == nil && !c.LoopbackServers && len(local) > 0 {
		asked = append(others(loopback), local...) // this machine's, but no other of it that a referral has
	}
	if asked != nil {
		for _, p := range others(asked) {
			set("do-not-query-address", "%s", p)
		}
	}
	yes("insecure-lan-zones", true)
	for _, z := range c.resolvedReverse() {
		set("local-zone", "%s nodefault", quoted(z))
	}
	yes("qname-minimisation", true)
	yes("minimal-responses", true)
	yes("use-caps-for-id", c.RandomCase)
	yes("prefetch", c.Prefetch)
	// Clients are told what is left of the time that the cache has.
	ttl := c.TTL
	if most := c.ClientMaxTTL; most > 0 {
		if ttl.Min > most {
			r.lacks("ttl.min", "is clientMaxTTL: records are kept no longer than clients are told")
		}
		ttl.Min, ttl.Max, ttl.Negative = min(ttl.Min, most), min(cmp.Or(ttl.Max, most), most), min(cmp.Or(ttl.Negative, most), most)
	}
	for _, bound := range []struct {
		key string
		to  Duration
	}{{"cache-min-ttl", ttl.Min}, {"cache-max-ttl", ttl.Max}, {"cache-max-negative-ttl", ttl.Negative}} {
		if bound.to > 0 {
			set(bound.key, "%d", bound.to.Seconds())
		}
	}
	if s := c.ServeStale; s != nil {
		yes("serve-expired", true)
		set("serve-expired-ttl", "%d", s.MaxAge.Seconds())
		yes("serve-expired-ttl-reset", false)
		set("serve-expired-reply-ttl", "%d", c.staleTTL())
		set("serve-expired-client-timeout", "%d", s.patience().Milliseconds())
		yes("ede-serve-expired", true)
	}
	if e := c.ECS; e != nil {
		for _, z := range e.Zones {
			set("client-subnet-zone", "%s", quoted(z.text))
		}
		yes("client-subnet-always-forward", false)
		set("max-client-subnet-ipv4", "%d", cmp.Or(e.IPv4, 24))
		set("max-client-subnet-ipv6", "%d", cmp.Or(e.IPv6, 56))
		r.lacks("ecs.zones", "answers that are kept for a client's network can't be flushed: names in these zones move when their TTL is over")
		if c.ServeStale != nil {
			r.lacks("serveStale", "does not go with ecs: answers that are kept for a client's network are not served stale")
		}
	}
	// There is one limit for all: nobody gets less than what is theirs.
	most, all := c.Limits.Client, c.Limits.Client > 0
	for _, n := range c.Limits.NAT {
		most, all = max(most, n.Client), all && n.Client > 0
	}
	switch {
	case len(c.Limits.NAT) > 0 && !all:
		r.lacks("limits", "there is one limit for all addresses, and some are to have none: nobody is limited")
	case len(c.Limits.NAT) > 0:
		r.lacks("limits.nat", "there is one limit for all addresses: each has %d", most)
	}
	if all {
		set("ip-ratelimit", "%d", most)
	}
	if n := c.Limits.Domain; n > 0 {
		set("ratelimit", "%d", n)
	}
	set("local-zone", "%s static", quoted(readyZone))
	set("local-data", "'%s 0 IN TXT \"%s\"'", ReadyName, generation)
	for _, n := range c.Block.Names {
		set("local-zone", "%s always_nxdomain", quoted(n.text))
	}

	if len(c.Block.Patterns) > 0 {
		r.lacks("block.patterns", "names are blocked as they are, with all below them")
	}

	clause("remote-control")
	yes("control-enable", true)
	yes("control-use-cert", false)
	set("control-interface", "%s", quoted(folder.text+"/"+UnboundSocket))
	if d := c.Dnstap; d != nil {
		clause("dnstap")
		yes("dnstap-enable", true)
		set("dnstap-socket-path", "%s", quoted(d.Socket.text))
		yes("dnstap-log-client-query-messages", true)
		yes("dnstap-log-client-response-messages", true)
	}
	for _, p := range c.Block.RPZ {
		clause("rpz")
		set("name", "%s", quoted(p.Name.text))
		if p.File != (Path{}) {
			set("zonefile", "%s", quoted(p.File.text))
		}
		for _, a := range p.Primaries {
			set("primary", "%s", at(a))
		}
	}
	for _, z := range c.Internal {
		clause("stub-zone")
		set("name", "%s", quoted(z.Zone.text))
		for _, a := range z.Servers {
			set("stub-addr", "%s", a)
		}
	}
	for _, f := range upstreams {
		for _, z := range f.Zones {
			clause("forward-zone")
			set("name", "%s", quoted(z.text))
			for _, u := range f.Upstreams {
				if u.TLS == nil {
					set("forward-addr", "%s", at(u.Address))
				} else {
					set("forward-addr", "%s#%s", at(u.Address), strings.TrimSuffix(u.TLS.Name.text, "."))
				}
			}
			yes("forward-tls-upstream", f.Upstreams[0].TLS != nil)
		}
	}
	b.WriteString(c.contents("#", c.policyFiles()))
	r.Files = []File{{"unbound.conf", b.String(), Reload}}
	if secrets != "" {
		r.Files = append(r.Files, File{unboundTLSFile, secrets, Restart})
	}
	return r
}

// unboundTLSFile has what Unbound reads when it starts and never again, not even other paths.
const unboundTLSFile = "tls.conf"

// unboundTLS is where certificates and keys are, "" if none are used, and the rules of Config.Forward that they suffice for.
func unboundTLS(c *Config, r *Rendered) (settings string, upstreams []Forward) {
	var b strings.Builder
	set := func(key string, to Path) { fmt.Fprintf(&b, "  %s: %s\n", key, quoted(to.text)) }
	files := c.serviceFiles()
	if c.TLS != nil {
		set("tls-service-pem", c.TLS.Certificate)
		set("tls-service-key", c.TLS.Key)
	}
	upstreams = c.Forward
	if ca := firstCA(c.Forward); ca != (Path{}) {
		set("tls-cert-bundle", ca)
		files = append(files, ca)
		upstreams = slices.DeleteFunc(slices.Clone(upstreams), func(f Forward) bool {
			other := slices.ContainsFunc(f.Upstreams, func(u Upstream) bool { return u.TLS != nil && u.TLS.CA != ca })
			if other {
				r.lacks("forward", "%s: all upstreams have one tls.ca, %s here; not forwarded", join(f.Zones, ", "), ca)
			}
			return other
		})
	}
	if b.Len() == 0 {
		return "", upstreams
	}
	return "# written by resolver-agent: changes are lost\n" + b.String() + c.contents("#", files), upstreams
}

// quoted is a string, in which nothing is an escape.
func quoted(text string) string { return `"` + plain(text) + `"` }

// firstCA is that of the first upstream with TLS; the zero Path if none has.
func firstCA(forwards []Forward) Path {
	for _, f := range forwards {
		if u := f.Upstreams[0]; u.TLS != nil {
			return u.TLS.CA
		}
	}
	return Path{}
}
