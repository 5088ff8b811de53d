package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/locum-ha/locum/supervise"
)

type applicationMetrics struct {
	healthy   *prometheus.GaugeVec
	starts    *prometheus.GaugeVec
	exits     *prometheus.CounterVec
	gaveUp    *prometheus.CounterVec
	hooks     *prometheus.HistogramVec
	guardians prometheus.Counter
	late      prometheus.Counter
}

func newApplicationMetrics(f factory) applicationMetrics {
	return applicationMetrics{
		healthy:   f.gaugeVec("locum_application_healthy", "1 while the application works on this node, else 0.", "application"),
		starts:    f.gaugeVec("locum_application_starts", "How often the application was started here since this node was unsealed.", "application"),
		exits:     f.counterVec("locum_application_exits_total", "Ends of the application's command on this node, wanted or not.", "application"),
		gaveUp:    f.counterVec("locum_application_gave_up_total", "How often this node stepped down because the application failed.", "application"),
		hooks:     f.histogramVec("locum_application_hook_seconds", "The hooks on_active and on_standby, by how they ended.", "application", "hook", "outcome"),
		guardians: f.counter("locum_guardian_deaths_total", "Guardians that ended unasked. Every application of this node ended with them."),
		late:      f.counter("locum_guardian_late_total", "Guardians that were killed because they did not end a tree of processes in time."),
	}
}

// Application makes the observer of one application.
func (m *Metrics) Application(name string) supervise.Observer {
	a := &m.applications
	healthy, starts, exits, gaveUp := a.healthy.WithLabelValues(name), a.starts.WithLabelValues(name), a.exits.WithLabelValues(name), a.gaveUp.WithLabelValues(name)
	return supervise.Observer{
		Changed: func(s supervise.State) {
			healthy.Set(one(s.Healthy()))
			starts.Set(float64(s.Starts))
		},
		Exited: func(supervise.Exit) { exits.Inc() },
		Hook: func(hook string, took time.Duration, err error) {
			outcome := "ok"
			if err != nil {
				outcome = "failed"
			}
			a.hooks.WithLabelValues(name, hook, outcome).Observe(took.Seconds())
		},
		GaveUp: func(error) { gaveUp.Inc() },
	}
}

// Guardian makes the observer of the guardian.
func (m *Metrics) Guardian() supervise.GuardianObserver {
	return supervise.GuardianObserver{Ended: func(error) { m.applications.guardians.Inc() }, Late: m.applications.late.Inc}
}
