package control

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// KnotResolver is one process of Knot Resolver 5, reached by the socket in its control folder. What is sent there is run as
// Lua, with the rights of the process: nothing goes into it unescaped.
type KnotResolver struct{ socket *socket }

// NewKnotResolver reaches the process by the path of its socket.
func NewKnotResolver(path string) KnotResolver { return KnotResolver{newSocket(path, 8)} }

// eval returns the value of a Lua expression on one line. Its result must be what JSON can say.
func (k KnotResolver) eval(ctx context.Context, what, expression string, result any) error {
	conn, done, err := k.socket.dial(ctx)
	if err != nil {
		return failed("kresd", what, err)
	}
	defer done()
	// The prompt of the command before counts as part of its reply, so commands go one after another.
	if _, err := io.WriteString(conn, "__binary\n"); err != nil {
		return failed("kresd", what, err)
	}
	prompt := make([]byte, 2)
	if _, err := io.ReadFull(conn, prompt); err != nil {
		return failed("kresd", what, err)
	}
	if _, err := fmt.Fprintf(conn, "(function() local ok, v = pcall(function() return %s end); if ok then return tojson({value = v}) end; return tojson({error = tostring(v)}) end)()\n", expression); err != nil {
		return failed("kresd", what, err)
	}
	head := make([]byte, 4)
	if _, err := io.ReadFull(conn, head); err != nil {
		return failed("kresd", what, err)
	}
	length := binary.BigEndian.Uint32(head)
	if length > maxReply {
		return failed("kresd", what, fmt.Errorf("a reply of %d octets", length))
	}
	reply := make([]byte, length)
	if _, err := io.ReadFull(conn, reply); err != nil {
		return failed("kresd", what, err)
	}
	text, err := unquote(string(reply))
	if err != nil {
		return failed("kresd", what, err)
	}
	var answer struct {
		Value json.RawMessage `json:"value"`
		Error string          `json:"error"`
	}
	switch err := json.Unmarshal([]byte(text), &answer); {
	case err != nil:
		return failed("kresd", what, err)
	case answer.Error != "":
		return failed("kresd", what, errors.New(answer.Error))
	case result == nil:
		return nil
	case answer.Value == nil:
		return failed("kresd", what, errors.New("no value"))
	}
	if err := json.Unmarshal(answer.Value, result); err != nil {
		return failed("kresd", what, err)
	}
	return nil
}

// quote is a string literal of Lua. Octets other than letters, digits, dots, hyphens and underscores are escaped.
func quote(text string) string {
	var b strings.Builder
	b.WriteByte('\'')
	for i := range len(text) {
		switch c := text[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '-', c == '_':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "\\%03d", c)
		}
	}
	b.WriteByte('\'')
	return b.String()
}

// unquote reads a string literal that kresd printed: \DDD, \n and other escaped octets that stand for themselves.
func unquote(text string) (string, error) {
	if len(text) < 2 || text[0] != '\'' || text[len(text)-1] != '\'' {
		return "", fmt.Errorf("%q is no string", text)
	}
	text = text[1 : len(text)-1]
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' {
			b.WriteByte(text[i])
			continue
		}
		i++
		if i+3 <= len(text) {
			if n, err := strconv.ParseUint(text[i:i+3], 10, 8); err == nil {
				b.WriteByte(byte(n))
				i += 2
				continue
			}
		}
		switch {
		case i == len(text):
			return "", errors.New("an escape without an end")
		case text[i] == 'n':
			b.WriteByte('\n')
		case text[i] == 'r':
			b.WriteByte('\r')
		case text[i] == 't':
			b.WriteByte('\t')
		default:
			b.WriteByte(text[i])
		}
	}
	return b.String(), nil
}

// Flush implements Engine. The cache is that of all processes which share it.
func (k KnotResolver) Flush(ctx context.Context, names ...zone.Name) ([]bool, error) {
	list := make([]string, len(names))
	for i, name := range names {
		list[i] = quote(name.String())
	}
	var held []bool
	err := k.eval(ctx, fmt.Sprintf("flushing %d names", len(names)), "(function() local r = {}; for i, n in ipairs({"+strings.Join(list, ",")+"}) do r[i] = (cache.clear(n, true).count or 1) > 0 end; return r end)()", &held)
	if err == nil && len(held) != len(names) {
		err = failed("kresd", "flushing", fmt.Errorf("%d results for %d names", len(held), len(names)))
	}
	return held, err
}

// FlushTree implements Engine.
func (k KnotResolver) FlushTree(ctx context.Context, name zone.Name) error {
	return k.eval(ctx, "flushing below "+name.String(), "cache.clear("+quote(name.String())+") and true", nil)
}

// Version implements Engine.
func (k KnotResolver) Version(ctx context.Context) (string, error) {
	var version string
	err := k.eval(ctx, "version", "package_version()", &version)
	return version, err
}

// Generation is the one of the configuration that the process has read; empty if the configuration does not say.
func (k KnotResolver) Generation(ctx context.Context) (string, error) {
	var g string
	err := k.eval(ctx, "generation", "fingerpost_generation or ''", &g)
	return g, err
}

// meanAnswer is the mean time of answers in seconds, from counts of classes: each counts as the middle of its class, and the last
// one, which has no end, as its beginning. 0: there were none.
func meanAnswer(from map[string]float64) float64 {
	sum, all := 0.0, 0.0
	for class, seconds := range map[string]float64{
		"1ms": .0005, "10ms": .0055, "50ms": .03, "100ms": .075, "250ms": .175, "500ms": .375, "1000ms": .75, "1500ms": 1.25, "slow": 1.5,
	} {
		n := from["answer."+class]
		sum, all = sum+n*seconds, all+n
	}
	if all == 0 {
		return 0
	}
	return sum / all
}

// Statistics implements Engine. They are those of one process.
func (k KnotResolver) Statistics(ctx context.Context) (Statistics, error) {
	var told struct {
		Stats  map[string]float64 `json:"stats"`
		Worker map[string]float64 `json:"worker"`
		Cache  float64            `json:"cache"`
		// What the configuration counts.
		Limited float64 `json:"limited"`
		Refused float64 `json:"refused"`
	}
	if err := k.eval(ctx, "statistics", "{stats = stats.list(), worker = worker.stats(), cache = cache.count(), limited = fingerpost_limited, refused = fingerpost_refused}", &told); err != nil {
		return nil, err
	}
	from := told.Stats
	if from == nil {
		from = map[string]float64{}
	}
	from["seconds"] = meanAnswer(from)
	from["queries"] = from["request.total"] - from["request.internal"]
	from["misses"] = from["answer.total"] - from["answer.cached"]
	from["noerror"] = from["answer.noerror"] + from["answer.nodata"]
	from["upstream"] = told.Worker["queries"]
	from["timeouts"] = told.Worker["timeout"]
	from["entries"] = told.Cache
	from["refused"] = told.Refused
	from["limited"] = told.Limited
	return pick(from, []counter{
		{AnswerSeconds, []string{"seconds"}},
		{Queries, []string{"queries"}},
		{CacheHits, []string{"answer.cached"}},
		{CacheMisses, []string{"misses"}},
		{NoError, []string{"noerror"}},
		{NXDomain, []string{"answer.nxdomain"}},
		{ServFail, []string{"answer.servfail"}},
		{Refused, []string{"refused"}},
		{Limited, []string{"limited"}},
		{Upstream, []string{"upstream"}},
		{Timeouts, []string{"timeouts"}},
		{CacheEntries, []string{"entries"}},
		{Stale, []string{"answer.stale"}},
	}), nil
}
