//go:build linux

package estate

import (
	"context"
	"fmt"
	"io"
	"iter"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Metrics returns all of a program's metrics in Prometheus' text format.
func Metrics(ctx context.Context, p *Program) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+at(p.Addr, HTTPPort)+"/metrics", http.NoBody)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("metrics of %s: %s", p.Name, response.Status)
	}
	return string(text), err
}

// Series yields the series of one metric in a text of Metrics: their labels, as in `a="1",b="2"`, and values.
func Series(text, name string) iter.Seq2[string, float64] {
	return func(yield func(string, float64) bool) {
		for l := range strings.Lines(text) {
			rest, is := strings.CutPrefix(strings.TrimSpace(l), name)
			labels := ""
			if strings.HasPrefix(rest, "{") {
				if end := strings.LastIndexByte(rest, '}'); end > 0 {
					labels, rest = rest[1:end], rest[end+1:]
				}
			}
			value, separated := strings.CutPrefix(rest, " ")
			if !is || !separated {
				continue // another metric
			}
			if v, err := strconv.ParseFloat(value, 64); err == nil && !yield(labels, v) {
				return
			}
		}
	}
}

// Sum adds up the series of a metric that have the given texts in their labels, as in `code="200"`; 0 if there are none.
func Sum(text, name string, labels ...string) (sum float64) {
series:
	for has, v := range Series(text, name) {
		for _, l := range labels {
			if !strings.Contains(has, l) {
				continue series
			}
		}
		sum += v
	}
	return sum
}
