package engine

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// RecursorSocket is the name of the Recursor's control socket in its own folder.
const RecursorSocket = "pdns_recursor.controlsocket"

// recursor renders recursor.conf and the files beside it that can be read again without a restart.
func recursor(c *Config) *Rendered {
	r := &Rendered{
		Program: "pdns_recursor", Args: []string{"--config-dir=."},
		Check: []string{"pdns_recursor", "--config-dir=.", "--config=check"},
	}
	var b strings.Builder
	set := func(key, format string, args ...any) { fmt.Fprintf(&b, key+"="+format+"\n", args...) }
	b.WriteString("# written by resolver-agent: changes are lost\n")
	for _, line := range []string{
		"daemon=no", "write-pid=no", "socket-dir=.", "disable-syslog=yes", "log-timestamp=no", "setuid=", "setgid=", "chroot=",
		"version-string=", "server-id=", "security-poll-suffix=", "webserver=no", "export-etc-hosts=off",
		"hint-file=root.hints", "allow-from=0.0.0.0/0,::/0", "lua-dns-script=queries.lua", "forward-zones-file=forward.zones", "lua-config-file=recursor.lua",
		"dot-to-port-853=yes", "extended-resolution-errors=yes",
		// Answers to clients are kept apart from records, once for each thread.
		"packetcache-ttl=2", "packetcache-servfail-ttl=1",
	} {
		b.WriteString(line + "\n")
	}
	listen := slices.Clone(c.Listen)
	if p := c.ProxyProtocol; p != nil {
		listen = append(listen, p.Listen...)
		set("proxy-protocol-from", "%s", join(p.From, ","))
	}
	set("local-address", "%s", strings.Join(each(listen, netip.AddrPort.String), ","))
	if t := c.TLS; t != nil {
		for _, f := range []struct {
			feature string
			at      []netip.AddrPort
		}{{"tls.dot", t.DoT}, {"tls.doh", t.DoH}} {
			if len(f.at) > 0 {
				r.lacks(f.feature, "clients ask in the clear alone: put a proxy in front")
			}
		}
	}
	// A family that is left out is not used at all; the wildcard stands for what the kernel chooses.
	var sources []netip.Addr
	for _, wildcard := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		of := func(a netip.Addr) bool { return a.Unmap().Is4() == wildcard.Is4() }
		if i := slices.IndexFunc(c.Source, of); i >= 0 {
			sources = append(sources, c.Source[i])
		} else if c.asksOver(wildcard.Is4()) {
			sources = append(sources, wildcard)
		}
	}
	set("query-local-address", "%s", join(sources, ","))
	set("threads", "%d", cmp.Or(c.Threads, 1))
	// An entry is one RRset, a kilobyte with its share of everything.
	set("max-cache-entries", "%d", cmp.Or(c.CacheMiB, 64)*1024)
	set("max-packetcache-entries", "%d", cmp.Or(c.CacheMiB, 64)*128)
	// The longest prefix decides; a leading ! lets it be asked.
	denied := []string{"127.0.0.0/8", "::1/128", "0.0.0.0/8", "::/128"}
	if c.LoopbackServers {
		denied = denied[2:]
	}
	denied = append(denied, each(c.local(), but)...)
	if asked := c.asked(); asked != nil {
		denied = append([]string{"0.0.0.0/0", "::/0"}, each(asked, but)...)
	}
	set("dont-query", "%s", strings.Join(denied, ","))
	set("serve-rfc1918", "no")
	local := []string{readyZone + "=ready.zone"}
	for _, z := range c.localReverse() {
		local = append(local, z+"=empty.zone")
	}
	set("auth-zones", "%s", strings.Join(local, ","))
	// Of one server, in ms: the next is asked then. Resolvers that have to ask others themselves get what is the default.
	if len(c.Forward) == 0 {
		set("network-timeout", "400")
	} else {
		set("network-timeout", "1500")
	}
	set("minimum-ttl-override", "%d", c.TTL.Min.Seconds())
	if c.TTL.Max > 0 {
		set("max-cache-ttl", "%d", c.TTL.Max.Seconds())
	}
	if c.TTL.Negative > 0 {
		set("max-negative-ttl", "%d", c.TTL.Negative.Seconds())
	}
	if c.Prefetch {
		set("refresh-on-ttl-perc", "10")
	}
	if s := c.ServeStale; s != nil {
		set("serve-stale-extensions", "%d", (s.MaxAge.Seconds()+29)/30)
		if c.staleTTL() != 30 && c.staleTTL() != c.ClientMaxTTL.Seconds() {
			r.lacks("serveStale.ttl", "is 30s")
		}
		if s.Patience != 0 {
			r.lacks("serveStale.patience", "expired records are used when all authorities have been tried, however long that takes")
		}
	}
	if c.RandomCase {
		r.lacks("randomCase", "version 4.8 has no 0x20")
	}
	if e := c.ECS; e != nil {
		set("edns-subnet-allow-list", "%s", join(e.Zones, ","))
		// For the agent beside it the server tells its own address (ecs-scope-zero-address), which is where the agent asks
		// authorities from: they answer both the same.
		set("ecs-add-for", "%s", strings.Join(append([]string{"0.0.0.0/0", "::/0"}, each(c.own(), but)...), ","))
		set("ecs-ipv4-bits", "%d", cmp.Or(e.IPv4, 24))
		set("ecs-ipv6-bits", "%d", cmp.Or(e.IPv6, 56))
	}
	if len(c.TrustAnchors) > 0 {
		set("dnssec", "validate")
	} else {
		set("dnssec", "off")
	}
	if c.Limits.Domain > 0 {
		r.lacks("limits.domain", "there are no limits")
	}
	if c.Dnstap != nil {
		r.lacks("dnstap", "clients' queries are not told: put a proxy in front")
	}
	if c.rates() != nil && c.Threads > 1 {
		r.lacks("limits.client", "each of %d threads counts for itself: clients may ask so many times as often", c.Threads)
	}

	var l strings.Builder
	l.WriteString("-- written by resolver-agent: changes are lost\n")
	if len(c.TrustAnchors) > 0 {
		l.WriteString("clearTA('.')\n")
	}
	for _, a := range c.TrustAnchors {
		fmt.Fprintf(&l, "addTA(%s, %s)\n", lua(a.Owner()), lua(a.DS()))
	}
	if len(c.Block.Names) > 0 {
		l.WriteString("rpzFile('block.rpz', {policyName = 'block'})\n")
	}
	for _, z := range c.Block.RPZ {
		if z.File != (Path{}) {
			fmt.Fprintf(&l, "rpzFile(%s, {policyName = %s})\n", lua(z.File.text), lua(z.Name.text))
			continue
		}
		fmt.Fprintf(&l, "rpzPrimary({%s}, %s)\n", luas(z.Primaries), lua(z.Name.text))
	}
	l.WriteString(c.contents("--", c.policyFiles()))

	var forward strings.Builder
	for _, z := range c.Internal {
		fmt.Fprintf(&forward, "%s=%s\n", z.Zone, strings.Join(each(z.Servers, func(a netip.Addr) string { return netip.AddrPortFrom(a, 53).String() }), ";"))
	}
	for _, f := range c.Forward {
		zones := join(f.Zones, ", ")
		if f.Upstreams[0].TLS != nil {
			if slices.ContainsFunc(f.Upstreams, func(u Upstream) bool { return u.Address.Port() != 853 }) {
				r.lacks("forward", "%s: TLS is spoken to port 853 alone; not forwarded", zones)
				continue
			}
			r.lacks("forward.upstreams.tls", "%s: certificates of upstreams are not checked", zones)
		}
		for _, z := range f.Zones {
			fmt.Fprintf(&forward, "+%s=%s\n", z, strings.Join(each(f.Upstreams, func(u Upstream) string { return u.Address.String() }), ";"))
		}
	}

	var block strings.Builder
	block.WriteString("$ORIGIN block.\n@ 60 IN SOA . . 1 3600 600 86400 60\n@ 60 IN NS .\n")
	for _, n := range c.Block.Names {
		fmt.Fprintf(&block, "%[1]s 60 IN CNAME .\n*.%[1]s 60 IN CNAME .\n", strings.TrimSuffix(n.text, "."))
	}

	r.Files = []File{
		{"recursor.conf", b.String(), Restart},
		{"queries.lua", recursorQueries(c), ReloadPart},
		{"forward.zones", forward.String(), ReloadPart},
		{"recursor.lua", l.String(), ReloadPart},
		{"ready.zone", fmt.Sprintf("%[1]s 0 IN SOA . . 1 3600 600 86400 0\n%[1]s 0 IN NS .\n%[2]s 0 IN TXT \"%[3]s\"\n", readyZone, ReadyName, generation), ReloadPart},
	}
	if len(local) > 1 {
		r.Files = append(r.Files, File{"empty.zone", "@ 60 IN SOA . . 1 3600 600 86400 60\n@ 60 IN NS .\n", ReloadPart})
	}
	if len(c.Block.Names) > 0 {
		r.Files = append(r.Files, File{"block.rpz", block.String(), ReloadPart})
	}
	return r
}

// but is how a network is left out of a list.
func but(p netip.Prefix) string { return "!" + p.String() }

// recursorQueries is a program that sees clients' queries before they are answered.
func recursorQueries(c *Config) string {
	ttl := ""
	if most := c.ClientMaxTTL.Seconds(); most > 0 {
		ttl = fmt.Sprintf("\n  ffi.C.pdns_ffi_param_set_ttl_cap(query, %d)", most)
	}
	return fmt.Sprintf(queries, luas(c.allowed()),
		strings.Join(each(c.rates(), func(n rate) string { return fmt.Sprintf("{%s, %d}", lua(n.network.String()), n.queries) }), ", "),
		strings.Join(each(c.Block.Patterns, func(p Pattern) string { return lua(p.lua) }), ", "), ttl, strings.TrimSuffix(ReadyName, "."))
}

// queries tags what clients ask, so that nobody is answered from packets which are kept for others: 1 clients, 2 those beyond
// their limit, and 0 all others, also if the program failed to look at them. Rates come with the longest network first. What an
// address may is remembered for so many of them; a fresh table each second keeps what strangers can fill small.
const queries = `-- written by resolver-agent: changes are lost
local ffi = require('ffi')
ffi.cdef[[
  typedef struct pdns_ffi_param pdns_ffi_param_t;
  const char* pdns_ffi_param_get_remote(pdns_ffi_param_t*);
  void pdns_ffi_param_set_tag(pdns_ffi_param_t*, unsigned int);
  void pdns_ffi_param_set_ttl_cap(pdns_ffi_param_t*, uint32_t);
]]
local clients, rates, patterns = newNMG(), {}, {}
clients:addMasks({%s})
for _, rate in ipairs({%s}) do
  local network = newNMG()
  network:addMask(rate[1])
  table.insert(rates, {network, rate[2]})
end
patterns = {%s}
local refused, limited = getMetric('fingerpost-refused'), getMetric('fingerpost-limited')

local known, size = {}, 0
local function rate(client)
  local of = known[client]
  if of == nil then
    local address = newCA(client)
    of = clients:match(address) and 0
    for _, network in ipairs(of and rates or {}) do
      if network[1]:match(address) then of = network[2] break end
    end
    if size == 65536 then known, size = {}, 0 end
    known[client], size = of, size + 1
  end
  return of
end

local counts, second = {}, 0
local function over(client, most)
  local now = os.time()
  if now ~= second then counts, second = {}, now end
  counts[client] = (counts[client] or 0) + 1
  return counts[client] > most
end

function gettag_ffi(object)
  local query = ffi.cast('pdns_ffi_param_t *', object)
  local client = ffi.string(ffi.C.pdns_ffi_param_get_remote(query))
  local most = rate(client)
  if not most then
    refused:inc()
    return
  end
  if most > 0 and over(client, most) then
    limited:inc()
    ffi.C.pdns_ffi_param_set_tag(query, 2)
    return
  end
  ffi.C.pdns_ffi_param_set_tag(query, 1)%s
end

function preresolve(query)
  if query.tag == 0 then
    query.rcode, query.extendedErrorCode = pdns.REFUSED, 18
    return true
  elseif query.tag == 2 then
    query.appliedPolicy.policyKind = pdns.policykinds.Drop
    return false
  end
  if #patterns == 0 then return false end
  local name = query.qname:toStringNoDot():lower()
  if name == '%s' then return false end
  for _, pattern in ipairs(patterns) do
    if name:find(pattern) then
      query.rcode, query.extendedErrorCode = pdns.NXDOMAIN, 15
      return true
    end
  end
  return false
end
`
