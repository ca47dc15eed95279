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
	say("local ffi = require('ffi')\nfingerpost_generation = '%s'", generation)

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

	say("\ncache.open(%d * MB, %s)", cmp.Or(c.CacheMiB, 64), lua("lmdb://"+KnotResolverCache))
	say("cache.min_ttl(%d)", c.TTL.Min.Seconds())
	if c.TTL.Max > 0 {
		say("cache.max_ttl(%d)", c.TTL.Max.Seconds())
	}
	if c.TTL.Negative > 0 {
		say(negativeTTL, c.TTL.Negative.Seconds())
	}
	if c.ClientMaxTTL > 0 {
		say(clientTTL, c.ClientMaxTTL.Seconds())
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
		say("serve_stale.callback = ffi.cast('kr_stale_cb', function (ttl)\n  if ttl + %d > 0 then return %d end\n  return -1\nend)", s.MaxAge.Seconds(), c.staleTTL())
	}
	if c.ECS != nil {
		r.lacks("ecs", "authorities are never told of clients: they see the source address of this server")
	}
	if d := c.Dnstap; d != nil {
		say("modules = {dnstap = {socket_path = %s, client = {log_queries = true, log_responses = true}}}", lua(d.Socket.text))
	}

	if asked := c.asked(); asked != nil {
		say(reach, luas(asked))
	}

	say(counting)
	if rates := c.rates(); rates != nil {
		say(clientLimits, strings.Join(each(rates, func(n rate) string { return fmt.Sprintf("{%s, %d}", lua(n.network.String()), n.queries) }), ", "))
	}
	if c.Limits.Domain > 0 {
		say(domainLimits, c.Limits.Domain)
	}

	say("\nmodules.load('view < policy')")
	for _, p := range c.allowed() {
		say("view:addr(%s, policy.all(policy.PASS))", lua(p.String()))
	}
	say(refusal)

	// The first rule that applies decides.
	say("\nlocal function under(action, zones)\n  policy.add(policy.suffix(action, policy.todnames(zones)))\nend")
	say("policy.add(policy.domains(policy.ANSWER({[kres.type.TXT] = {ttl = 0, rdata = string.char(#fingerpost_generation) .. fingerpost_generation}}, true), policy.todnames({%s})))", lua(ReadyName))
	if len(c.Block.Names) > 0 {
		say("under(policy.DENY, {%s})", luas(c.Block.Names))
	}
	if len(c.Block.Patterns) > 0 {
		say(patterns, strings.Join(each(c.Block.Patterns, func(p Pattern) string { return lua(p.lua) }), ", "))
	}
	for _, z := range c.Block.RPZ {
		if z.File == (Path{}) {
			r.lacks("block.rpz", "%s: comes by transfer, and only files are read", z.Name)
			continue
		}
		r.lacks("block.rpz", "%s: those about names alone count, and none leads to another name: the others are left out", z.Name)
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
	b.WriteString(c.contents("--", c.ReadFiles()))
	r.Files = []File{{"kresd.conf", b.String(), Replace}}
	return r
}

// reach is a module that lets no question go to addresses outside networks.
const reach = `
local asked = {}
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

// counting is a function that tells whether something has happened more than so many times in this second. A fresh table each
// second keeps what strangers can fill small.
const counting = `
fingerpost_limited, fingerpost_refused = 0, 0
local function counter()
  local counts, second, now = {}, 0, ffi.C.kr_now
  return function (key, most)
    local this = math.floor(tonumber(now()) / 1000)
    if this ~= second then counts, second = {}, this end
    counts[key] = (counts[key] or 0) + 1
    return counts[key] > most
  end
end`

// clientLimits is a module that leaves clients beyond their limit without an answer. Networks come the longest first.
const clientLimits = `
local rates = {}
for _, rate in ipairs({%s}) do
  local address = ffi.new('char[16]')
  table.insert(rates, {ffi.C.kr_straddr_family(rate[1]), address, ffi.C.kr_straddr_subnet(address, rate[1]), rate[2]})
end
local over = counter()
package.loaded['kres_modules.fingerpost_limits'] = {layer = {begin = function (state, req)
  local client = req.qsource.addr
  if client == nil then return state end
  for _, rate in ipairs(rates) do
    if rate[1] == client:family() and ffi.C.kr_bitcmp(rate[2], client:ip(), rate[3]) == 0 then
      if rate[4] > 0 and over(ffi.string(client:ip(), client:len()), rate[4]) then
        fingerpost_limited = fingerpost_limited + 1
        req.options.NO_ANSWER = true
        return kres.FAIL
      end
      return state
    end
  end
  return state
end}}
modules.load('fingerpost_limits')`

// domainLimits is a module that asks the authorities of a zone no more often.
const domainLimits = `
local asked_over = counter()
package.loaded['kres_modules.fingerpost_domains'] = {layer = {checkout = function (state, req)
  local query = req:current()
  if not query.flags.FORWARD and asked_over(kres.dname2wire(query.zone_cut.name), %d) then
    fingerpost_limited = fingerpost_limited + 1
    return kres.FAIL
  end
  return state
end}}
modules.load('fingerpost_domains')`

// negativeTTL is a module that keeps negative answers no longer than so many seconds (RFC 2308 §5).
const negativeTTL = `
package.loaded['kres_modules.fingerpost_negative'] = {layer = {consume = function (state, req, packet)
  local function cap(rr)
    if rr.type == kres.type.SOA and rr._ttl > %[1]d then rr._ttl = %[1]d end
  end
  for _, rr in ipairs(packet:rrsets(kres.section.AUTHORITY)) do cap(rr) end
  for i = 0, tonumber(req.auth_selected.len) - 1 do cap(req.auth_selected.at[i].rr) end
  return state
end}}
modules.load('fingerpost_negative < cache')`

// clientTTL is a module that tells clients so many seconds at most. Answers are packets already (RFC 1035 §4.1).
const clientTTL = `
package.loaded['kres_modules.fingerpost_ttl'] = {layer = {finish = function (state, req)
  local answer, most = req.answer, %d
  if answer == nil or not answer:has_wire() then return state end
  for i = 0, answer.rrset_count - 1 do
    if answer.rr[i]._ttl > most then answer.rr[i]._ttl = most end
  end
  local wire, size, at = answer.wire, tonumber(answer.size), 12 + answer.qname_size + 4
  local function number(at) return wire[at] * 256 + wire[at + 1] end
  for _ = 1, number(6) + number(8) + number(10) do
    while at < size and wire[at] > 0 and wire[at] < 192 do at = at + 1 + wire[at] end
    if at < size then at = at + (wire[at] == 0 and 1 or 2) end
    if at + 10 > size then return state end
    if number(at) ~= 41 and number(at + 4) * 65536 + number(at + 6) > most then
      wire[at + 4], wire[at + 5] = bit.rshift(most, 24), bit.band(bit.rshift(most, 16), 255)
      wire[at + 6], wire[at + 7] = bit.band(bit.rshift(most, 8), 255), bit.band(most, 255)
    end
    at = at + 10 + number(at + 8)
  end
  return state
end}}
modules.load('fingerpost_ttl')`

// refusal is what all but clients get.
const refusal = `
local function refuse(state, req)
  fingerpost_refused = fingerpost_refused + 1
  return policy.REFUSE(state, req)
end
view:addr('0.0.0.0/0', policy.all(refuse))
view:addr('::/0', policy.all(refuse))`

// patterns is a rule that denies names which have a pattern.
const patterns = `policy.add((function ()
  local patterns = {%s}
  return function (_, query)
    local name = kres.dname2str(query.sname):lower():sub(1, -2)
    for _, pattern in ipairs(patterns) do
      if name:find(pattern) then return policy.DENY end
    end
  end
end)())`

// depth is the number of a name's labels.
func depth(name string) int {
	if name == "." {
		return 0
	}
	return strings.Count(name, ".")
}

// lua is a string literal.
func lua(text string) string { return "'" + plain(text) + "'" }

// luas are string literals, separated.
func luas[T fmt.Stringer](values []T) string {
	return strings.Join(each(values, func(v T) string { return lua(v.String()) }), ", ")
}
