//go:build linux

package estate

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Metric returns the sum of all series of one of a program's metrics with the given texts in their labels, as in
// `code="200"`. It fails if there is none.
func Metric(ctx context.Context, p *Program, name string, labels ...string) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+at(p.Addr, HTTPPort)+"/metrics", http.NoBody)
	if err != nil {
		return 0, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err
	}
	sum, found, err := Sum(string(text), name, labels...)
	if err == nil && !found {
		err = fmt.Errorf("%s has no metric %s", p.Name, name)
	}
	return sum, err
}

// Sum adds up the series of a metric in Prometheus' text format that have the given texts in their labels.
func Sum(text, name string, labels ...string) (sum float64, found bool, err error) {
series:
	for l := range strings.Lines(text) {
		series, value, ok := strings.Cut(strings.TrimSpace(l), "} ")
		base, has, _ := strings.Cut(series, "{")
		if !ok { // no labels
			base, value, ok = strings.Cut(series, " ")
		}
		if !ok || base != name {
			continue
		}
		for _, label := range labels {
			if !strings.Contains(has, label) {
				continue series
			}
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return 0, false, fmt.Errorf("metric %s: %w", name, err)
		}
		sum, found = sum+v, true
	}
	return sum, found, nil
}
