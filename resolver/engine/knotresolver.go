package engine

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// KnotResolverControl is the folder, in the server's own, where each process of Knot Resolver listens for commands: a socket
// named by its process id.
const KnotResolverControl = "control"

// KnotResolverCache is the folder, in the server's own, of the cache, which outlives its processes.
const KnotResolverCache = "cache"

// knotResolver renders kresd.conf, which is a program in Lua.
func knotResolver(c *Config) *Rendered {
	r := &Rendered{Program: "kresd", Args: []string{"-n", "-c", "kresd.conf", "."}}
	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	say("-- written by resolver-agent: changes are lost")
	say("log_target('stderr')\nlog_level('notice')")
	say("fingerpost_generation = %s", lua(generation))

	listen := func(kind string, on []netip.AddrPort) {
		for _, a := range on {
			say("net.listen(%s, %d, {kind = %s})", lua(a.Addr().String()), a.Port(), lua(kind))
		}
	}
	listen("dns", c.Listen)
	if t := c.TLS; t != nil {
		say("net.tls(%s, %s)", lua(t.Certificate.text), lua(t.Key.text))
		listen("tls", t.DoT)
		listen("doh2", t.DoH)
	}
	if p := c.ProxyProtocol; p != nil {
		listen("dns", p.Listen)
		say("net.proxy_allowed({%s})", luas(p.From))
	}
	say("net.ipv4, net.ipv6 = %t, %t", c.asksOver(true), c.asksOver(false))
	for _, a := range c.Source {
		if a.Unmap().Is4() {
			say("net.outgoing_v4(%s)", lua(a.Unmap().String()))
		} else {
			say("net.outgoing_v6(%s)", lua(a.String()))
		}
	}
	if c.Threads > 1 {
		r.lacks("threads", "a process uses one CPU: run more replicas")
	}

	say("\ncache.open(%d * MB, 'lmdb://%s')", cmp.Or(c.CacheMiB, 64), KnotResolverCache)
	say("cache.min_ttl(%d)", c.TTL.Min.Seconds())
	if c.TTL.Max > 0 {
		say("cache.max_ttl(%d)", c.TTL.Max.Seconds())
	}
	if c.TTL.Negative > 0 {
		r.lacks("ttl.negative", "what does not exist is kept as long as its zone says, and ttl.max at most")
	}

	say("\nmodules.unload('detect_time_skew')\nmodules.unload('ta_signal_query')\nmodules.unload('ta_sentinel')\nmodules.unload('ta_update')")
	say("trust_anchors.remove('.')")
	for _, a := range c.TrustAnchors {
		say("trust_anchors.add(%s)", lua(a.text))
	}
	say("modules.load('hints')\nhints.root_file('root.hints')")
	say("modules.load('stats')")
	say("option('NO_0X20', %t)", !c.RandomCase)
	if c.Prefetch {
		// At five seconds and less every answer counts as about to expire: each query of a client would go upstream too.
		if c.TTL.Min.Seconds() > 5 {
			say("modules.load('predict')\npredict.config({window = 0, period = 0})")
		} else {
			r.lacks("prefetch", "records of five seconds and less would be asked for with every query: needs a ttl.min of 6s or more")
		}
	}
	if s := c.ServeStale; s != nil {
		say("modules.load('serve_stale < cache')")
		say("serve_stale.timeout = %d", s.patience().Milliseconds())
		say("serve_stale.callback = require('ffi').cast('kr_stale_cb', function (ttl)\n  if ttl + %d > 0 then return %d end\n  return -1\nend)", s.MaxAge.Seconds(), s.ttl())
	}
	if c.ECS != nil {
		r.lacks("ecs", "authorities are never told of clients: they see the source address of this server")
	}
	if c.Limits.Client > 0 {
		r.lacks("limits.client", "there are no limits in version 5")
	}
	if c.Limits.Domain > 0 {
		r.lacks("limits.domain", "there are no limits in version 5")
	}
	if c.ClientMaxTTL > 0 {
		r.lacks("clientMaxTTL", "clients are told what the cache has")
	}
	if len(c.Limits.NAT) > 0 {
		r.lacks("limits.nat", "there are no limits of their own")
	}
	if len(c.Block.Patterns) > 0 {
		r.lacks("block.patterns", "names are blocked as they are")
	}
	if d := c.Dnstap; d != nil {
		say("modules = {dnstap = {socket_path = %s, client = {log_queries = true, log_responses = true}}}", lua(d.Socket.text))
	}

	if asked := c.asked(); asked != nil {
		say(reach, luas(asked))
	}

	say("\nmodules.load('view < policy')")
	for _, p := range c.allowed() {
		say("view:addr(%s, policy.all(policy.PASS))", lua(p.String()))
	}
	say("view:addr('0.0.0.0/0', policy.all(policy.REFUSE))\nview:addr('::/0', policy.all(policy.REFUSE))")

	// The first rule that applies decides.
	say("\nlocal function under(action, zones)\n  policy.add(policy.suffix(action, policy.todnames(zones)))\nend")
	say("policy.add(policy.domains(policy.ANSWER({[kres.type.TXT] = {ttl = 0, rdata = string.char(#fingerpost_generation) .. fingerpost_generation}}, true), policy.todnames({%s})))", lua(ReadyName))
	if len(c.Block.Names) > 0 {
		say("under(policy.DENY, {%s})", luas(c.Block.Names))
	}
	for _, z := range c.Block.RPZ {
		if z.File == (Path{}) {
			r.lacks("block.rpz", "%s: comes by transfer, and only files are read", z.Name)
			continue
		}
		say("policy.add(policy.rpz(policy.DENY, %s, false))", lua(z.File.text))
	}
	// The deepest zone first.
	type rule struct{ zone, action string }
	rules := []rule{}
	for _, z := range c.resolvedReverse() {
		rules = append(rules, rule{z, "policy.PASS"})
	}
	for _, z := range c.localReverse() {
		rules = append(rules, rule{z, "policy.DENY"})
	}
	for _, z := range c.Internal {
		rules = append(rules, rule{z.Zone.text, "policy.PASS"})
	}
	for _, f := range c.Forward {
		targets := make([]string, len(f.Upstreams))
		for i, u := range f.Upstreams {
			targets[i] = lua(at(u.Address))
			if u.TLS != nil {
				targets[i] = fmt.Sprintf("{%s, hostname = %s, ca_file = %s}", targets[i], lua(strings.TrimSuffix(u.TLS.Name.text, ".")), lua(u.TLS.CA.text))
			}
		}
		action := "policy.FORWARD"
		if f.Upstreams[0].TLS != nil {
			action = "policy.TLS_FORWARD"
		}
		for _, z := range f.Zones {
			rules = append(rules, rule{z.text, fmt.Sprintf("%s({%s})", action, strings.Join(targets, ", "))})
		}
	}
	slices.SortStableFunc(rules, func(a, b rule) int {
		return cmp.Or(cmp.Compare(depth(b.zone), depth(a.zone)), cmp.Compare(a.zone, b.zone))
	})
	for len(rules) > 0 {
		same := 1
		for same < len(rules) && rules[same].action == rules[0].action {
			same++
		}
		zones := make([]string, same)
		for i, r := range rules[:same] {
			zones[i] = lua(r.zone)
		}
		say("under(%s, {%s})", rules[0].action, strings.Join(zones, ", "))
		rules = rules[same:]
	}
	r.Files = []File{{"kresd.conf", b.String(), Replace}}
	return r
}

// reach is a module that lets no question go to addresses outside networks.
const reach = `
local asked, ffi = {}, require('ffi')
for _, network in ipairs({%s}) do
  local address = ffi.new('char[16]')
  table.insert(asked, {ffi.C.kr_straddr_family(network), address, ffi.C.kr_straddr_subnet(address, network)})
end
package.loaded['kres_modules.fingerpost_reach'] = {layer = {checkout = function (state, _, _, server)
  for _, network in ipairs(asked) do
    if network[1] == server:family() and ffi.C.kr_bitcmp(network[2], server:ip(), network[3]) == 0 then return state end
  end
  return kres.FAIL
end}}
modules.load('fingerpost_reach')`

// depth is the number of a name's labels.
func depth(name string) int {
	if name == "." {
		return 0
	}
	return strings.Count(name, ".")
}

// lua is a string literal. The values of this package hold nothing that needs an escape but the octets of generation, which
// are replaced.
func lua(text string) string { return "'" + text + "'" }

// luas are string literals, separated.
func luas[T fmt.Stringer](values []T) string {
	return strings.Join(each(values, func(v T) string { return lua(v.String()) }), ", ")
}
