package main

import (
	"bytes"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	frames "github.com/dnstap/golang-dnstap"
	"github.com/miekg/dns"
)

// options asks over UDP with options.
func (r *running) options(name string, options ...dns.EDNS0) *dns.Msg {
	r.t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(name, dns.TypeA)
	m.SetEdns0(4096, false)
	m.IsEdns0().Option = options
	reply, _, err := (&dns.Client{Timeout: 20 * time.Second}).Exchange(m, r.Addresses[0])
	if err != nil {
		r.t.Fatal(err)
	}
	return reply
}

// metric returns the value of a metric with its labels, "" if there is none.
func (r *running) metric(name string) string {
	r.t.Helper()
	_, body := r.get("/metrics")
	for line := range strings.Lines(body) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

func TestSettingsByFlags(t *testing.T) {
	dir := t.TempDir()
	var large []string
	for i := range 200 {
		large = append(large, fmt.Sprintf("large A 10.1.0.%d", i))
	}
	file := zoneFile(t, dir, "one.zone", 1, append(large, "www A 10.0.0.2")...)
	tap := filepath.Join(dir, "tap")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: tap})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	address := loopback()
	r := start(t, "--zone", "one.test="+file, "--listen", address+":0", "--name", "auth-7", "--nsid", "--max-udp", "4096",
		"--rrl", "5", "--rrl-slip", "1", "--limit-ipv4-prefix", "24", "--limit-exempt", "192.0.2.0/24", "--resolver", "192.0.2.1",
		"--dnstap", "unix:"+tap, "--top-every", "1", "--threads", "1")

	reply := r.options("large.one.test.", &dns.EDNS0_NSID{Code: dns.EDNS0NSID})
	if reply.Truncated || len(reply.Answer) != 200 {
		t.Errorf("of a large set %d records come, truncated %t", len(reply.Answer), reply.Truncated)
	}
	if o := reply.IsEdns0().Option; len(o) != 1 || o[0].(*dns.EDNS0_NSID).Nsid != "617574682d37" {
		t.Errorf("the server calls itself %v", o)
	}
	truncated := 0
	for range 20 {
		if r.options("www.one.test.").Truncated {
			truncated++
		}
	}
	if truncated < 10 || truncated > 15 {
		t.Errorf("of 20 replies where 5 a second are allowed %d are truncated", truncated)
	}
	if got := r.metric(`fingerpost_dnsserver_limited_total{limit="responses",outcome="truncated"}`); got != fmt.Sprint(truncated) {
		t.Errorf("%s truncated replies are counted, wanted %d", got, truncated)
	}
	if status, body := r.get("/top?n=1"); status != 200 || !strings.Contains(body, `"name": "www.one.test."`) || !strings.Contains(body, `"count": 20`) {
		t.Errorf("the name that is asked for most: %d %s", status, body)
	}
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	reader, err := frames.NewReader(conn, &frames.ReaderOptions{Bidirectional: true})
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1<<16)
	if n, err := reader.ReadFrame(b); err != nil || !bytes.Contains(b[:n], []byte("auth-7")) || !bytes.Contains(b[:n], []byte("\x05large\x03one\x04test")) {
		t.Errorf("dnstap tells %q, %v", b[:n], err)
	}
}

func TestHangupReadsCookieSecretsAgain(t *testing.T) {
	dir := t.TempDir()
	const one, other = "000102030405060708090a0b0c0d0e0f", "ffeeddccbbaa99887766554433221100"
	file := zoneFile(t, dir, "one.zone", 1, "www A 10.0.0.2")
	secrets := write(t, filepath.Join(dir, "secrets"), "# of the group\n\n"+one+"\n")
	r := start(t, "--zone", "one.test="+file, "--cookie-secret-file", secrets, "--threads", "1")
	sibling := start(t, "--zone", "one.test="+file, "--cookie-secret-file", secrets, "--threads", "1")
	cookie := "0011223344556677"
	ask := func(r *running) {
		t.Helper()
		reply := r.options("www.one.test.", &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: cookie})
		cookie = reply.IsEdns0().Option[0].(*dns.EDNS0_COOKIE).Cookie
	}
	ask(r)
	ask(sibling)
	const good, bad = `fingerpost_dnsserver_cookies_total{cookie="good",transport="udp"}`, `fingerpost_dnsserver_cookies_total{cookie="bad",transport="udp"}`
	if got := sibling.metric(good); got != "1" {
		t.Errorf("the sibling has seen %s good cookies", got)
	}
	before := cookie
	write(t, secrets, other+"\n"+one+"\n")
	r.signal(syscall.SIGHUP)
	r.log("secrets of cookies read")
	r.log("zones reloaded")
	ask(r)
	if got := r.metric(good); got != "1" || cookie == before {
		t.Errorf("after a new secret %s good cookies, the cookie is %s after %s", got, cookie, before)
	}
	write(t, secrets, "secret\n")
	r.signal(syscall.SIGHUP)
	if failure := r.log("the secrets of cookies stay as they were"); !strings.HasSuffix(failure["err"].(string), secrets+":1: a secret is 32 hexadecimal digits") {
		t.Errorf("a bad file is reported as %v", failure)
	}
	ask(r)
	if r.metric(good) != "2" || r.metric(bad) != "0" {
		t.Error("a cookie is bad")
	}
}

func TestSettingsThatMakeNoSense(t *testing.T) {
	dir := t.TempDir()
	file := zoneFile(t, dir, "one.zone", 1)
	short := write(t, filepath.Join(dir, "short"), "00112233\n")
	empty := write(t, filepath.Join(dir, "empty"), "\n# nothing\n")
	for sentence, tc := range map[string]struct {
		args []string
		want string
	}{
		"replies that are too short":    {[]string{"--max-udp", "100"}, "the longest reply over UDP is to be 512 to 4096 octets, not 100"},
		"every twentieth slips":         {[]string{"--rrl-slip", "20"}, "of dropped replies each 1st to 10th may go out truncated, not each 20th"},
		"a resolver by name":            {[]string{"--resolver", "resolver.test"}, `--resolver: "resolver.test" is neither an address nor a network`},
		"a network with bits behind it": {[]string{"--limit-exempt", "10.0.0.1/24"}, `--limit-exempt: "10.0.0.1/24" has bits set behind its prefix; the network is 10.0.0.0/24`},
		"no file of secrets":            {[]string{"--cookie-secret-file", dir + "/nope"}, "reading the secrets of cookies: open " + dir + "/nope"},
		"a secret that is too short":    {[]string{"--cookie-secret-file", short}, "reading the secrets of cookies: " + short + ":1: a secret is 32 hexadecimal digits"},
		"no secret":                     {[]string{"--cookie-secret-file", empty}, "reading the secrets of cookies: " + empty + ": there is no secret"},
		"dnstap over TCP":               {[]string{"--dnstap", "tcp:127.0.0.1:6000"}, `telling of queries: "tcp:127.0.0.1:6000" is neither unix:PATH nor file:PATH`},
		"settings of a group for a hub": {[]string{"--rrl", "5", "--sibling", "x:1"}, "--zone, --rrl for a server that runs alone does not go with --sibling for one with a hub"},
	} {
		t.Run(sentence, func(t *testing.T) {
			args := append(slices.Clone(tc.args), "--zone", "one.test="+file, "--listen", loopback()+":0", "--http-listen", "")
			out, err := process(t, args...).CombinedOutput()
			lines := strings.Split(strings.TrimSpace(string(out)), "\n")
			if err == nil || !strings.HasPrefix(lines[len(lines)-1], "dnsserver: "+tc.want) {
				t.Errorf("it ended with %v and said\n%s\nwanted %s", err, out, tc.want)
			}
		})
	}
}
