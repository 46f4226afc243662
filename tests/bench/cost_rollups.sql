-- name: bare
alter table cost.cost_event drop constraint cost_event_attempt_key;
drop index cost.cost_event_time_idx, cost.cost_event_session_idx;
alter table cost.cost_event set unlogged;

-- name: fill
insert into cost.cost_event (
  tenant_id, id, generation_id, session_id, agent_name, provider, model, tokens_input, tokens_output, tokens_cached_input,
  tokens_reasoning, estimated, cost_micros_usd, cost_usd, price_version, team, user_id, created_at)
select 'bench', 'e' || n, 'g' || n, 's' || n % 100000, 'A' || hashint4(n) % 10 + 10, 'p' || n % 3, 'm' || n % 9,
  100 + n % 900, 50 + n % 400, n % 100, 0, n % 50 = 0, n % 5000, (n % 5000) / 1000000.0, 'bench',
  'T' || n % 50 % 7, 'u' || n % 50,
  timestamptz '2025-01-01Z' + interval '1 second' * (n * (365 * 86400.0 / $1::int))
from generate_series(0, $1::int - 1) n;

-- name: indexes
alter table cost.cost_event add constraint cost_event_attempt_key unique (tenant_id, generation_id, attempt);
create index cost_event_time_idx on cost.cost_event (tenant_id, created_at, id);

-- name: hours
-- In the order of time, as the service writes them.
insert into cost.cost_hour
select tenant_id, date_trunc('hour', created_at, 'UTC'), provider, model, agent_name, count(*),
  count(*) filter (where estimated), sum(tokens_input), sum(tokens_output), sum(tokens_cached_input),
  sum(tokens_reasoning), sum(cost_micros_usd)
from cost.cost_event group by 1, 2, 3, 4, 5 order by 2;

-- name: days
insert into cost.cost_day
select tenant_id, date_trunc('day', hour, 'UTC'), provider, model, agent_name, sum(entries), sum(estimated),
  sum(tokens_input), sum(tokens_output), sum(tokens_cached_input), sum(tokens_reasoning), sum(cost_micros_usd)
from cost.cost_hour group by 1, 2, 3, 4, 5 order by 2;

-- name: person_hours
insert into cost.person_hour
select tenant_id, date_trunc('hour', created_at, 'UTC'), team, user_id, count(*), count(*) filter (where estimated),
  sum(tokens_input), sum(tokens_output), sum(tokens_cached_input), sum(tokens_reasoning), sum(cost_micros_usd)
from cost.cost_event group by 1, 2, 3, 4 order by 2;

-- name: person_days
insert into cost.person_day
select tenant_id, date_trunc('day', hour, 'UTC'), team, user_id, sum(entries), sum(estimated), sum(tokens_input),
  sum(tokens_output), sum(tokens_cached_input), sum(tokens_reasoning), sum(cost_micros_usd)
from cost.person_hour group by 1, 2, 3, 4 order by 2;

-- name: settle_statistics
vacuum analyze cost.cost_event, cost.cost_hour, cost.cost_day, cost.person_hour, cost.person_day;
