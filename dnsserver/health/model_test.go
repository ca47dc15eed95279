package health_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
)

// model decides which answers are allowed, from what really happens in a world and sections 6 and 7 of the design. It
// knows nothing of how package health comes to its decisions. Where the design gives time to find out (thresholds,
// voteTTL, connecting again), all that may be believed meanwhile is allowed: it keeps sets of what each server may
// believe. They grow when something may become known, and shrink when it must be.
type model struct {
	w     *world
	times modelTimes

	sites []*modelSite
	eyes  []*eye
	aims  []*modelAim
	names []modelRecord

	override, before string // what a person told last: "", "force b", "fail back"; and before that
	told             time.Time

	checked, exact int // answers, and those where one alone was allowed
	failures       []string
}

// modelTimes are the shortest and longest that servers may take.
type modelTimes struct {
	fallsFrom, falls time.Duration // a vote, to Down
	risesFrom, rises time.Duration
	first            time.Duration // a server without a vote, to any
	contact          time.Duration // until a peer that can be heard is heard, and what it says is known
	silenceFrom      time.Duration // until one that can't is not fresh any more
	silence          time.Duration
	oneWay           time.Duration // the latter, if packets are lost in the other direction alone
	isolation        time.Duration
	reach            time.Duration // until a server that starts has reached whom it can
	young            time.Duration // a server that started adopts, and waits for others
	save             time.Duration // what is younger may not be on disk
	slack            time.Duration
	answers          time.Duration // until a server that starts does
}

// set is of what may be believed.
type set uint8

// A vote, and with none a verdict.
const (
	none set = 1 << iota
	up
	down
)

// Whether a pool is used. The design does not say when all follow a datacenter that left one while it had lost another:
// the model takes the word of package health, that those with TrustLocal do not.
const (
	in  set = 1 << iota
	out     // for all
	own     // by this datacenter, for itself
)

// Whether something is.
const (
	no set = 1 << iota
	yes
)

func (s set) may(o set) bool { return s&o != 0 }

type modelSite struct {
	name     string
	witness  bool
	anchors  bool
	eyes     []*eye
	votes    []set // of the datacenter, by aim
	recent   []set // of this look and the one before
	cut      bool
	cutSince time.Time
	isolated set

	passes, both      []bool // packets to other sites, and both ways
	passesAt, bothsAt []time.Time
}

// modelAim is a target, the only one of a pool.
type modelAim struct {
	home       int
	aim        *aim
	kind       []string // as seen from each site: ok, refused or silent
	from       []time.Time
	electorate []int
}

// eye is a server.
type eye struct {
	s       *server
	site    int
	running bool
	// starting: it did not answer yet.
	starting bool
	since    time.Time // running, or not
	answered time.Time // last
	fresh    []set     // sites
	heard    [][]set   // by site and aim: votes of when it was heard last
	votes    []set     // its own, by aim
	verdict  [][2]set  // by aim, for TrustLocal and Hold
	changed  [][2]time.Time
	how      [][2]set       // by aim: whether its datacenter was lost when that may have been found down
	notUp    [][2]time.Time // when it was not certainly up, last
	isDown   [][2]time.Time // when it was certainly down, last
	pools    [][]set        // by record and aim
	poolsAt  [][]time.Time  // when these changed
	left     [][]time.Time  // when that may have been decided, or heard of, last
	entered  [][]time.Time  // when the return may have been decided, last
	forced   set
	allowed  []map[string]bool // by record, of the last look
}

type modelRecord struct {
	pb    *steeringpb.Record
	hold  int
	hand  bool
	delay time.Duration
}

func newModel(w *world, times modelTimes) *model {
	m := &model{w: w, times: times}
	n := len(w.topo.GetDatacenters())
	for _, d := range w.topo.GetDatacenters() {
		m.sites = append(m.sites, &modelSite{
			name: d.GetName(), witness: d.GetWitness(), anchors: len(d.GetAnchors()) > 0, cutSince: epoch, isolated: no,
			passes: make([]bool, n), both: make([]bool, n), passesAt: make([]time.Time, n), bothsAt: make([]time.Time, n),
		})
	}
	for i, d := range m.sites {
		for _, a := range w.targets {
			if a.dc == d.name {
				m.aims = append(m.aims, &modelAim{
					home: i, aim: a, kind: make([]string, n), from: make([]time.Time, n), electorate: m.electorate(i),
				})
			}
		}
	}
	for _, r := range w.pbs {
		m.names = append(m.names, modelRecord{
			pb: r, hold: bit(r.GetHoldOnPeerLoss()), hand: r.GetFailoverManual(), delay: time.Duration(r.GetFailbackDelay()) * time.Millisecond,
		})
	}
	for _, s := range w.servers {
		e := &eye{
			s: s, since: epoch, fresh: make([]set, n), votes: slices.Repeat([]set{none}, len(m.aims)), forced: no,
			verdict: slices.Repeat([][2]set{{up | down, up | down}}, len(m.aims)), changed: make([][2]time.Time, len(m.aims)),
			notUp: make([][2]time.Time, len(m.aims)), how: make([][2]set, len(m.aims)), isDown: make([][2]time.Time, len(m.aims)),
			site:    slices.IndexFunc(m.sites, func(d *modelSite) bool { return d.name == s.id.Datacenter }),
			allowed: make([]map[string]bool, len(m.names)),
		}
		for range m.sites {
			e.heard = append(e.heard, slices.Repeat([]set{none}, len(m.aims)))
		}
		for range m.names {
			e.pools = append(e.pools, slices.Repeat([]set{in}, len(m.aims)))
			e.poolsAt = append(e.poolsAt, make([]time.Time, len(m.aims)))
			e.left = append(e.left, make([]time.Time, len(m.aims)))
			e.entered = append(e.entered, make([]time.Time, len(m.aims)))
		}
		m.sites[e.site].eyes = append(m.sites[e.site].eyes, e)
		m.eyes = append(m.eyes, e)
	}
	for _, d := range m.sites {
		d.votes, d.recent = slices.Repeat([]set{none}, len(m.aims)), slices.Repeat([]set{none}, len(m.aims))
	}
	return m
}

func bit(b bool) int { return either(b, 1, 0) }

// electorate is the target's own datacenter and its two nearest: by rank, which here is the order.
func (m *model) electorate(home int) []int {
	all := []int{home}
	for i := range m.sites {
		if i != home && len(all) < 3 {
			all = append(all, i)
		}
	}
	return all
}

// ago reports whether t is at least so long ago.
func (m *model) ago(t time.Time, d time.Duration) bool { return m.w.now.Sub(t) >= d }

// person tells what a person did.
func (m *model) person(what string) {
	m.before, m.override, m.told = m.override, what, m.w.now
	for _, e := range m.eyes {
		e.forced |= either(strings.HasPrefix(what, "force"), yes, no)
	}
}

// look brings the model up to what is true now, and checks what servers answer. It is called every second, and before and
// after everything that happens.
func (m *model) look() {
	m.truth()
	for _, e := range m.eyes {
		for i := range m.aims {
			e.votes[i] = m.serverVote(e, i)
		}
	}
	for _, d := range m.sites {
		for i := range m.aims {
			before := d.votes[i]
			d.votes[i] = m.siteVote(d, i)
			d.recent[i] = before | d.votes[i]
		}
	}
	for _, e := range m.eyes {
		m.hear(e)
	}
	m.verdicts()
	m.latches()
	for _, e := range m.eyes {
		if e.running && !m.sites[e.site].witness {
			m.judge(e)
		}
	}
}

// truth looks at what is alive and what reaches what.
func (m *model) truth() {
	now := m.w.now
	for i, d := range m.sites {
		site := m.w.site(d.name)
		if cut := site.cut || site.dead || m.w.anchor[[2]string{d.name, d.name}]; cut != d.cut {
			d.cut, d.cutSince = cut, now
		}
		for j, o := range m.sites {
			p := m.w.passes(d.name, o.name)
			b := p && m.w.passes(o.name, d.name)
			if p != d.passes[j] {
				d.passes[j], d.passesAt[j] = p, now
			}
			if b != d.both[j] {
				d.both[j], d.bothsAt[j] = b, now
			}
		}
		for _, a := range m.aims {
			kind := "ok"
			switch {
			case !d.both[a.home]:
				kind = "silent"
			case a.aim.dead:
				kind = "refused"
			}
			if a.kind[i] != kind {
				a.kind[i], a.from[i] = kind, now
			}
		}
	}
	for _, e := range m.eyes {
		if running := e.s.alive && !e.s.paused; running != e.running {
			e.running, e.since = running, now
			if running {
				m.started(e)
			}
		}
	}
	for _, d := range m.sites {
		d.isolated = no
		if !d.anchors {
			continue
		}
		known := m.ago(d.cutSince, m.times.isolation)
		for _, e := range d.eyes {
			known = known && (!e.running || m.ago(e.since, m.times.isolation))
		}
		switch {
		case !known:
			d.isolated |= yes
		case d.cut:
			d.isolated = yes
		}
	}
}

// started has a server go on from what it knew, as far as that was saved; one that lost it, or does not know, from what its
// siblings or else others know.
func (m *model) started(e *eye) {
	lost := len(e.s.disk) == 0
	e.starting = !e.s.answering(m.w.records[0])
	clear(e.allowed)
	if lost {
		e.forced = yes | no
	}
	var from []*eye
	for _, siblings := range []bool{true, false} {
		for _, o := range m.eyes {
			if o != e && o.running && (o.site == e.site) == siblings && (len(from) == 0 || siblings || from[0].site != e.site) {
				from = append(from, o)
			}
		}
	}
	for i := range m.aims {
		e.votes[i] |= none
		if lost {
			e.votes[i] = none
		}
		for hold := range 2 {
			v := &e.verdict[i][hold]
			if lost {
				*v = 0
			}
			if lost || !m.sites[e.site].witness {
				for _, o := range from {
					*v |= o.verdict[i][hold]
				}
			}
			if *v == 0 || !m.ago(e.changed[i][hold], m.times.save) {
				*v = up | down
			}
		}
	}
	for r := range m.names {
		for p := range m.aims {
			if lost {
				e.pools[r][p] = in
			}
			for _, o := range from { // that has left it meanwhile
				if o.pools[r][p].may(out|own) && !m.sites[o.site].witness {
					e.pools[r][p] |= own
				}
			}
			if !m.ago(e.left[r][p], m.times.save+time.Second) || !m.ago(e.entered[r][p], m.times.save+time.Second) {
				e.pools[r][p] |= in | out | own
			}
			e.left[r][p] = m.w.now
		}
	}
}

// serverVote is what one server may vote by now.
func (m *model) serverVote(e *eye, i int) set {
	a, v := m.aims[i], e.votes[i]
	if !e.running {
		return v
	}
	d := m.sites[e.site]
	since := a.from[e.site]
	if e.since.After(since) {
		since = e.since
	}
	ok := a.kind[e.site] == "ok"
	side, other := either(ok, up, down), either(ok, down, up)
	from := either(ok, m.times.risesFrom, m.times.fallsFrom)
	must := either(ok, m.times.rises, m.times.falls)
	// Failures in a row may have begun before the target was silent instead of refusing, say; one that did may be
	// forgiven when its datacenter is heard again.
	if v.may(none) || m.ago(since, from) || !ok {
		v |= side
	}
	if v.may(down) && d.both[a.home] && !m.ago(d.bothsAt[a.home], m.times.contact+m.times.first) {
		v |= none
	} else if m.ago(since, m.times.first) && m.ago(d.bothsAt[a.home], m.times.contact+2*m.times.first) {
		v &^= none
		if v == 0 {
			v = up | down
		}
	}
	// A datacenter with anchors that is cut off blames nobody else.
	if m.ago(since, must) && (ok || !d.anchors || d.both[a.home] || !d.cut && m.ago(d.cutSince, must)) {
		v &^= other | none
	}
	if ok && !m.ago(since, from) {
		return v
	}
	return v | either(v == 0, side, 0)
}

// siteVote is the majority of a datacenter's fresh servers; a tie keeps the last vote.
func (m *model) siteVote(d *modelSite, i int) set {
	var may []set
	for _, e := range d.eyes {
		switch {
		case e.running:
			may = append(may, e.votes[i])
		case !m.ago(e.since, m.times.silenceFrom):
			may = append(may, e.votes[i])
		case !m.ago(e.since, m.times.silence):
			may = append(may, e.votes[i]|none)
		}
	}
	var result set
	var count func(k, ups, downs int)
	count = func(k, ups, downs int) {
		if k < len(may) {
			if may[k].may(up) {
				count(k+1, ups+1, downs)
			}
			if may[k].may(down) {
				count(k+1, ups, downs+1)
			}
			if may[k].may(none) {
				count(k+1, ups, downs)
			}
			return
		}
		switch {
		case ups > downs:
			result |= up
		case downs > ups:
			result |= down
		case ups > 0 && d.votes[i].may(up|down):
			result |= d.votes[i] &^ none
		case ups > 0:
			result |= up | down
		default:
			result |= none
		}
	}
	count(0, 0, 0)
	return result
}

// hear finds which datacenters a server hears, and what it has heard.
func (m *model) hear(e *eye) {
	for j, d := range m.sites {
		if j == e.site {
			e.fresh[j] = yes
			continue
		}
		talks, quiet, quieter := false, true, true
		for _, o := range d.eyes {
			talks = talks || o.running && m.ago(o.since, m.times.contact)
			quiet = quiet && !o.running && m.ago(o.since, m.times.silence)
			quieter = quieter && !o.running
		}
		joined := d.both[e.site] && m.ago(d.bothsAt[e.site], m.times.contact) && m.ago(e.since, m.times.contact)
		apart := !d.passes[e.site] && m.ago(d.passesAt[e.site], m.times.silence) ||
			!d.both[e.site] && m.ago(d.bothsAt[e.site], m.times.oneWay)
		soon := !m.ago(d.passesAt[e.site], m.times.silenceFrom) && !d.passes[e.site] || !d.both[e.site] && d.passes[e.site] && !m.ago(d.bothsAt[e.site], m.times.silenceFrom)
		was := e.fresh[j]
		switch {
		case quiet || apart:
			e.fresh[j] = no
		case talks && joined, was == yes && soon:
			e.fresh[j] = yes
		default:
			e.fresh[j] = yes | no
		}
		for i := range m.aims {
			switch {
			case e.fresh[j] == yes && joined && talks:
				e.heard[j][i] = d.recent[i]
			case e.fresh[j].may(yes):
				e.heard[j][i] |= d.recent[i]
			}
		}
	}
}

// verdicts brings up to date what servers think of targets.
func (m *model) verdicts() {
	next := make([][][2]set, len(m.eyes))
	for k, e := range m.eyes {
		next[k] = slices.Clone(e.verdict)
		for i := range m.aims {
			for hold := range 2 {
				if e.running {
					next[k][i][hold] = m.verdict(e, i, hold)
				}
			}
		}
	}
	for k, e := range m.eyes {
		for i := range m.aims {
			for hold := range 2 {
				v := next[k][i][hold]
				if v != e.verdict[i][hold] {
					e.changed[i][hold] = m.w.now
				}
				e.verdict[i][hold] = v
				if v != up {
					e.notUp[i][hold] = m.w.now
				}
				if v == down {
					e.isDown[i][hold] = m.w.now
				}
				if v == up {
					e.how[i][hold] = 0
				}
			}
		}
	}
}

func (m *model) verdict(e *eye, i, hold int) set {
	a, d := m.aims[i], m.sites[e.site]
	kept := e.verdict[i][hold]
	for _, sibling := range d.eyes {
		if sibling.running {
			kept |= sibling.verdict[i][hold]
		}
	}
	mine := d.recent[i]
	var result set
	if !m.ago(e.since, m.times.young) {
		result |= kept
	}
	if d.isolated.may(yes) { // other datacenters' targets stay as they are, its own follow its own vote
		if a.home == e.site && mine != none {
			result |= mine &^ none
		} else {
			result |= kept
		}
	}
	if !d.isolated.may(no) {
		return result
	}
	options := make([]set, len(a.electorate))
	for k, j := range a.electorate {
		switch {
		case j == e.site:
			options[k] = mine
		case e.fresh[j] == no:
			options[k] = none
		default:
			options[k] = e.heard[j][i] | either(e.fresh[j].may(no), none, 0)
		}
		if is := m.sites[j].isolated; is.may(yes) {
			options[k] |= none
			if is == yes && (j == e.site || e.fresh[j] == yes && m.sites[j].both[e.site]) { // and could say so
				options[k] = none
			}
		}
	}
	anchors := m.sites[a.home].anchors && !d.cut

	chosen := make([]set, len(a.electorate))
	var count func(k int)
	count = func(k int) {
		if k < len(chosen) {
			for _, v := range []set{none, up, down} {
				if options[k].may(v) {
					chosen[k] = v
					count(k + 1)
				}
			}
			return
		}
		n := map[set]int{}
		for _, v := range chosen {
			n[v]++
		}
		// If the vote of the target's datacenter is missing, that is lost, or has none.
		lost := no
		if a.home != e.site && chosen[slices.Index(a.electorate, a.home)] == none && e.fresh[a.home].may(no) {
			lost = yes
			if e.fresh[a.home].may(yes) && (e.heard[a.home][i].may(none) || m.sites[a.home].isolated.may(yes)) {
				lost |= no
			}
		}
		decide := func(v set) {
			confirmed := m.confirmed(e, a, chosen, v, mine) || v == down && anchors
			if hold == 0 || lost.may(no) || kept.may(v) || confirmed {
				result |= v
			}
			if hold == 1 && lost.may(yes) {
				result |= kept // others that are needed to confirm may be heard a little later
			}
			if v == down && (hold == 0 || lost.may(no) || confirmed) {
				e.how[i][hold] |= lost
			}
		}
		missing := false // one is heard by now, but not yet what it votes
		for k, j := range a.electorate {
			missing = missing || chosen[k] == none && j != e.site && e.fresh[j].may(yes)
		}
		if missing {
			result |= kept
		}
		switch {
		case n[up] > n[down]:
			decide(up)
		case n[down] > n[up]:
			decide(down)
		case n[up] > 0:
			result |= kept
		case hold == 0:
			for _, v := range []set{up, down} {
				if mine.may(v) {
					decide(v)
				}
			}
			if mine.may(none) {
				result |= kept
			}
		default:
			result |= kept
		}
	}
	count(0)
	if hold == 1 && result == kept|up|down && e.fresh[a.home] == no && a.home != e.site && m.ago(e.since, m.times.young) {
		return m.held(e, a, options, kept, anchors, mine)
	}
	return result
}

// held is the verdict on a target of a datacenter that is lost for certain: it stays, unless somebody confirms another.
func (m *model) held(e *eye, a *modelAim, options []set, kept set, anchors bool, mine set) set {
	result := kept
	for _, v := range []set{up, down} {
		agree, witness := 0, false
		for k, j := range a.electorate {
			if j != a.home && options[k].may(v) {
				agree++
				witness = witness || m.sites[j].witness && j != e.site
			}
		}
		if !slices.Contains(a.electorate, e.site) && mine.may(v) {
			agree++
		}
		if agree >= 2 || witness || v == down && anchors && mine.may(down) {
			result |= v
			if agree >= 2 && !slices.ContainsFunc(options[1:], func(o set) bool { return o != v }) && options[0] == none {
				result &^= (up | down) ^ v // all of them for certain
			}
		}
	}
	if d := m.sites[e.site]; anchors && mine == down && d.isolated == no && m.ago(d.cutSince, m.times.isolation) && !slices.ContainsFunc(options, func(o set) bool { return o.may(up) }) {
		return down
	}
	return result
}

func (m *model) confirmed(e *eye, a *modelAim, chosen []set, v, mine set) bool {
	agree, witness := 0, false
	for k, j := range a.electorate {
		if j != a.home && chosen[k] == v {
			agree++
			witness = witness || m.sites[j].witness && j != e.site
		}
	}
	if !slices.Contains(a.electorate, e.site) && mine.may(v) {
		agree++
	}
	return agree >= 2 || witness
}

// adopted has a server that begins to answer know what its siblings know, or else that all others have left a pool, if it
// reaches them.
func (m *model) adopted(e *eye) {
	for r := range m.names {
		for p := range m.aims {
			siblings, others, all := 0, 0, true
			for _, o := range m.eyes {
				if o == e || !o.running || m.sites[o.site].witness {
					continue
				}
				if !m.ago(o.since, m.times.young) {
					all = all && !o.pools[r][p].may(in) // it may be asked, or not
					continue
				}
				if !m.sites[e.site].both[o.site] || !m.ago(m.sites[e.site].bothsAt[o.site], m.times.reach) {
					continue
				}
				if o.site == e.site {
					siblings++
					all = all && !o.pools[r][p].may(in)
				} else {
					others++
					all = all && (siblings > 0 || !o.pools[r][p].may(in))
				}
			}
			if all && siblings+others > 0 && e.pools[r][p].may(out|own) {
				e.pools[r][p] &^= in
			}
		}
	}
}

// latches brings up to date which pools servers may have left.
func (m *model) latches() {
	next := make([][][]set, len(m.eyes))
	for k, e := range m.eyes {
		for r := range m.names {
			next[k] = append(next[k], slices.Clone(e.pools[r]))
			for p := range m.aims {
				if e.running {
					next[k][r][p] = m.latch(e, r, p)
				}
			}
		}
	}
	for k, e := range m.eyes {
		for r := range m.names {
			for p := range m.aims {
				if e.pools[r][p] != next[k][r][p] {
					e.poolsAt[r][p] = m.w.now
				}
			}
		}
		e.pools = next[k]
		if m.w.hubReaches(e.s) && m.ago(m.told, m.times.contact) && m.ago(e.since, m.times.contact) &&
			m.sites[e.site].both[m.siteIndex(m.w.hubAt)] && m.ago(m.sites[e.site].bothsAt[m.siteIndex(m.w.hubAt)], m.times.contact) {
			e.forced = either(strings.HasPrefix(m.override, "force"), yes, no)
		}
	}
}

// says reports whether a person's word may be in force, as far as a server knows that may not have heard the last.
func (m *model) says(what string) bool {
	return strings.HasPrefix(m.override, what) || strings.HasPrefix(m.before, what) && !m.ago(m.told, m.times.contact)
}

func (m *model) siteIndex(name string) int {
	return slices.IndexFunc(m.sites, func(d *modelSite) bool { return d.name == name })
}

func (m *model) latch(e *eye, r, p int) set {
	now, rec := m.w.now, m.names[r]
	verdict := func(e *eye, p int) set { return e.verdict[p][rec.hold] }
	since := func(e *eye, p int, d time.Duration) bool { return m.ago(e.changed[p][rec.hold], d) }
	inOrder := rec.pb.GetPolicy() == steeringpb.Policy_FAILOVER
	may := e.pools[r][p]

	elsewhere, surely, before, used := false, false, false, false
	for q := range m.aims {
		if q == p {
			continue
		}
		elsewhere = elsewhere || verdict(e, q).may(up)
		surely = surely || verdict(e, q) == up && since(e, q, m.times.slack)
		before = before || q < p && e.pools[r][q].may(in) && verdict(e, q).may(up)
		used = used || e.pools[r][q] == in && (verdict(e, q) == up || rec.hand && elsewhere)
	}
	person := m.says("force") || e.forced.may(yes)

	// What others tell. Nobody disputes that the pool is up, for long enough, if all who may be heard see it so.
	undisputed, heardOf := true, false
	for _, o := range m.eyes {
		if o == e || !o.running || !e.fresh[o.site].may(yes) {
			continue
		}
		if o.pools[r][p].may(out) || o.site == e.site && o.pools[r][p].may(own) {
			may |= o.pools[r][p] & (out | either(o.site == e.site, own, 0))
			e.left[r][p] = latest(e.left[r][p], o.left[r][p])
			if e.fresh[o.site] != yes || !m.ago(o.since, m.times.contact) {
				e.left[r][p] = now
			}
		}
		if o.pools[r][p] == out && m.ago(o.poolsAt[r][p], m.times.contact) && e.fresh[o.site] == yes && m.ago(e.since, m.times.young) {
			heardOf = true
		}
		if may.may(out|own) && o.pools[r][p].may(in) && o.entered[r][p].After(e.left[r][p].Add(-m.times.slack)) {
			may |= in
			e.entered[r][p] = latest(e.entered[r][p], o.entered[r][p])
		}
		undisputed = undisputed && (m.sites[o.site].witness || e.fresh[o.site] == yes && verdict(o, p) == up && m.ago(o.notUp[p][rec.hold], rec.delay+m.times.slack))
	}

	if m.sites[e.site].witness { // it passes on what others decide
		return may
	}

	// What may be.
	isolated := m.sites[e.site].isolated
	alone := isolated.may(yes) || e.fresh[m.aims[p].home].may(no)
	kind := either(alone, own, 0) | either(!alone, out, 0)
	if rec.hold == 1 && alone {
		kind = m.reach(e, p)
	}
	if e.how[p][rec.hold].may(no) && isolated.may(no) || rec.hand {
		kind |= out
	}
	if may.may(in) && elsewhere && (!rec.hand && verdict(e, p).may(down) || person && (rec.hand && verdict(e, p).may(down) || rec.hold == 1 && alone)) {
		may |= kind
		e.left[r][p] = now
	}
	long := rec.delay == 0 || m.ago(e.isDown[p][rec.hold], rec.delay-m.times.slack) && m.ago(e.since, rec.delay-m.times.slack)
	if may.may(out|own) && verdict(e, p).may(up) && (!rec.hand && long || !used || m.says("fail") || inOrder && before) {
		may |= in
		e.entered[r][p] = now
	}

	// What must be.
	if heardOf && may.may(out|own) && e.entered[r][p].Before(now) {
		may &^= in
	}
	grown := m.ago(e.since, m.times.young)
	decided := e.forced == yes && m.ago(m.told, m.times.contact+m.times.slack) && p != 1 && verdict(e, 1) == up && since(e, 1, m.times.slack)
	if (!rec.hand || decided) && grown && verdict(e, p) == down && since(e, p, m.times.slack) && surely && (!inOrder || !before) {
		may &^= in
		may |= either(may == 0, kind, 0)
	}
	long = verdict(e, p) == up && m.ago(e.notUp[p][rec.hold], rec.delay+m.times.slack) && m.ago(e.left[r][p], rec.delay+m.times.slack)
	back := !rec.hand || m.override == "fail back" && m.ago(m.told, m.times.contact) && m.w.hubReaches(e.s)
	if grown && long && undisputed && e.fresh[m.aims[p].home] == yes && back {
		may = in
	}
	return may
}

// reach is for whom a datacenter decides that lost the one of a pool, whose record holds: for all if more than half of the
// electorate besides that one agree. (The design does not say.)
func (m *model) reach(e *eye, p int) set {
	a := m.aims[p]
	all, surely, maybe := 0, 0, 0
	for _, j := range a.electorate {
		if j == a.home {
			continue
		}
		all++
		votes := m.sites[j].recent[p]
		if j != e.site {
			votes = e.heard[j][p]
		}
		maybe += bit(votes.may(down) && e.fresh[j].may(yes))
		surely += bit(votes == down && e.fresh[j] == yes)
	}
	return either(surely*2 > all, 0, own) | either(maybe*2 > all, out, 0)
}

func latest(a, b time.Time) time.Time { return either(a.After(b), a, b) }

// judge checks the answers of one server: each must be of those that are allowed now, or were at the last look.
func (m *model) judge(e *eye) {
	if !e.s.answering(m.w.records[0]) {
		if m.ago(latest(e.since, e.answered), m.times.answers) {
			m.failures = append(m.failures, fmt.Sprintf("%s %s does not answer", m.w.now.Sub(epoch), e.s.id.Name))
		}
		return
	}
	e.answered = m.w.now
	if e.starting {
		e.starting = false
		m.adopted(e)
	}
	for r := range m.names {
		now := m.answers(e, r)
		got := e.s.answer(m.w.records[r], e.s.id.Datacenter)
		m.checked++
		if len(now) == 1 {
			m.exact++
		}
		if got == "-" || got == "?" && !m.ago(e.since, m.times.answers) {
			e.allowed[r] = now
			continue // nobody was answered, or a server that starts says so
		}
		if !m.permits(now, got) && !m.permits(e.allowed[r], got) {
			m.failures = append(m.failures, fmt.Sprintf("%s %s answers %s with %s; allowed are %v (votes %v, heard %v, verdicts %v, pools %v, fresh %v)",
				m.w.now.Sub(epoch), e.s.id.Name, m.names[r].pb.GetSource(), got, slices.Sorted(maps.Keys(now)), e.votes, e.heard, e.verdict, e.pools[r], e.fresh))
		}
		e.allowed[r] = now
	}
}

// permits reports whether an answer is allowed. What a client of a real server gets is one of the pools that are given by turns.
func (m *model) permits(allowed map[string]bool, got string) bool {
	if m.w.real == nil || allowed[got] {
		return allowed[got]
	}
	for pools := range allowed {
		if slices.Contains(strings.Split(pools, "+"), got) {
			return true
		}
	}
	return false
}

// answers are all that a server may answer to clients near it.
func (m *model) answers(e *eye, r int) map[string]bool {
	rec := m.names[r]
	all := map[string]bool{}
	ups, outs := make([]bool, len(m.aims)), make([]bool, len(m.aims))
	var each func(p int)
	each = func(p int) {
		if p < len(m.aims) {
			for _, v := range []set{up, down} {
				for _, l := range []set{in, out | own} {
					if e.verdict[p][rec.hold].may(v) && e.pools[r][p].may(l) {
						ups[p], outs[p] = v == up, l != in
						each(p + 1)
					}
				}
			}
			return
		}
		if rec.hand && e.forced.may(yes) {
			all[either(ups[1], m.pool(1), m.choose(e, rec, ups, outs))] = true
		}
		if !rec.hand || e.forced.may(no) {
			all[m.choose(e, rec, ups, outs)] = true
		}
	}
	each(0)
	return all
}

func (m *model) pool(p int) string { return letter(m.sites[m.aims[p].home].name) }

// choose is what the policy answers if these pools are up and these left.
func (m *model) choose(e *eye, rec modelRecord, ups, outs []bool) string {
	var usable, left, every []int
	for p := range ups {
		every = append(every, p)
		switch {
		case ups[p] && !outs[p]:
			usable = append(usable, p)
		case ups[p]:
			left = append(left, p)
		}
	}
	if rec.hand {
		for p := range ups { // the first that was not left: if it is down, a person must decide
			if !outs[p] && (ups[p] || len(usable)+len(left) > 0) {
				return m.pool(p)
			}
		}
	}
	of := usable
	if len(of) == 0 {
		of = left
	}
	if len(of) == 0 {
		of = every
	}
	switch rec.pb.GetPolicy() {
	case steeringpb.Policy_NEAREST:
		for _, p := range of {
			if m.aims[p].home == e.site {
				return m.pool(p)
			}
		}
		return m.pool(of[0])
	case steeringpb.Policy_WEIGHTED:
		var names []string
		for _, p := range of {
			names = append(names, m.pool(p))
		}
		return strings.Join(names, "+")
	default:
		return m.pool(of[0])
	}
}
