package mesh

import (
	"errors"
	"slices"

	"github.com/fingerpost-dns/fingerpost/dnsserver/health"
	"github.com/fingerpost-dns/fingerpost/dnsserver/mesh/meshpb"
)

// errMalformed refuses a message that no server sends.
var errMalformed = errors.New("malformed message")

// encode writes a message for the wire; nil if it has none of the fields.
func encode(m health.Message) *meshpb.Message {
	switch {
	case m.Heartbeat != nil:
		h := m.Heartbeat
		return &meshpb.Message{Message: &meshpb.Message_Heartbeat{Heartbeat: &meshpb.Heartbeat{
			Boot: h.Boot, Began: h.Began, Seq: h.Seq, Digest: h.Digest, LatchDigest: h.LatchDigest,
			Settled: h.Settled, Isolated: h.Isolated, Sick: h.Sick, Anchors: h.Anchors,
		}}}
	case m.Ballots != nil:
		return &meshpb.Message{Message: &meshpb.Message_Ballots{Ballots: &meshpb.Ballots{
			Boot: m.Ballots.Boot, Seq: m.Ballots.Seq, Ballots: encodeBallots(m.Ballots.Ballots),
		}}}
	case m.Ask != nil:
		return &meshpb.Message{Message: &meshpb.Message_Ask{Ask: &meshpb.Ask{
			Digests: m.Ask.Digests, Nonce: m.Ask.Nonce, LatchDigest: m.Ask.LatchDigest,
		}}}
	case m.Table != nil:
		t := m.Table
		return &meshpb.Message{Message: &meshpb.Message_Table{Table: &meshpb.Table{
			Boot: t.Boot, Seq: t.Seq, Parts: t.Parts, Ballots: encodeBallots(t.Ballots), Last: t.Last,
		}}}
	case m.Latches != nil:
		out := &meshpb.Latches{Last: m.Latches.Last, Nonce: m.Latches.Nonce}
		for _, l := range m.Latches.Latches {
			out.Latches = append(out.Latches, &meshpb.Latch{
				Record: l.Record, Pool: l.Pool, Scope: l.Scope, Out: l.Out, At: l.At, By: l.By, Person: l.Person,
			})
		}
		return &meshpb.Message{Message: &meshpb.Message_Latches{Latches: out}}
	}
	return nil
}

func encodeBallots(ballots []health.Ballot) []*meshpb.Ballot {
	out := make([]*meshpb.Ballot, len(ballots))
	for i, b := range ballots {
		out[i] = &meshpb.Ballot{
			Check: slices.Clone(b.Check[:]), Vote: uint32(b.Vote), Since: b.Since,
			Datacenter: uint32(b.Datacenter), DatacenterSince: b.DatacenterSince, Latency: b.Latency,
		}
		for _, v := range b.Verdicts {
			out[i].Verdicts = append(out[i].Verdicts, &meshpb.Verdict{Home: v.Home, Hold: v.Hold, State: uint32(v.State), Since: v.Since})
		}
	}
	return out
}

// decode reads a message of a peer; it checks what the types of package health can't hold.
func decode(m *meshpb.Message) (health.Message, error) {
	switch {
	case m.GetHeartbeat() != nil:
		h := m.GetHeartbeat()
		return health.Message{Heartbeat: &health.Heartbeat{
			Boot: h.GetBoot(), Began: h.GetBegan(), Seq: h.GetSeq(), Digest: h.GetDigest(), LatchDigest: h.GetLatchDigest(),
			Settled: h.GetSettled(), Isolated: h.GetIsolated(), Sick: h.GetSick(), Anchors: h.GetAnchors(),
		}}, nil
	case m.GetBallots() != nil:
		ballots, err := decodeBallots(m.GetBallots().GetBallots())
		return health.Message{Ballots: &health.Ballots{Boot: m.GetBallots().GetBoot(), Seq: m.GetBallots().GetSeq(), Ballots: ballots}}, err
	case m.GetAsk() != nil:
		if n := len(m.GetAsk().GetDigests()); n != 0 && n != 256 {
			return health.Message{}, errMalformed
		}
		a := m.GetAsk()
		return health.Message{Ask: &health.Ask{Digests: a.GetDigests(), Nonce: a.GetNonce(), LatchDigest: a.GetLatchDigest()}}, nil
	case m.GetTable() != nil:
		t := m.GetTable()
		ballots, err := decodeBallots(t.GetBallots())
		return health.Message{Table: &health.Table{
			Boot: t.GetBoot(), Seq: t.GetSeq(), Parts: t.GetParts(), Ballots: ballots, Last: t.GetLast(),
		}}, err
	case m.GetLatches() != nil:
		out := &health.Latches{Last: m.GetLatches().GetLast(), Nonce: m.GetLatches().GetNonce()}
		for _, l := range m.GetLatches().GetLatches() {
			out.Latches = append(out.Latches, health.Latch{
				LatchKey: health.LatchKey{Record: l.GetRecord(), Pool: l.GetPool(), Scope: l.GetScope()},
				Out:      l.GetOut(), At: l.GetAt(), By: l.GetBy(), Person: l.GetPerson(),
			})
		}
		return health.Message{Latches: out}, nil
	}
	return health.Message{}, errMalformed
}

func decodeBallots(ballots []*meshpb.Ballot) ([]health.Ballot, error) {
	out := make([]health.Ballot, len(ballots))
	for i, b := range ballots {
		vote, ok := state(b.GetVote())
		datacenter, also := state(b.GetDatacenter())
		if len(b.GetCheck()) != len(out[i].Check) || !ok || !also {
			return nil, errMalformed
		}
		out[i] = health.Ballot{
			Check: health.CheckID(b.GetCheck()), Vote: vote, Since: b.GetSince(),
			Datacenter: datacenter, DatacenterSince: b.GetDatacenterSince(), Latency: b.GetLatency(),
		}
		for _, v := range b.GetVerdicts() {
			s, ok := state(v.GetState())
			if !ok {
				return nil, errMalformed
			}
			out[i].Verdicts = append(out[i].Verdicts, health.Verdict{Home: v.GetHome(), Hold: v.GetHold(), State: s, Since: v.GetSince()})
		}
	}
	return out, nil
}

func state(n uint32) (health.State, bool) { return health.State(n), n <= uint32(health.Down) }
