-- name: add_event
insert into risk_event (tenant_id, id, risk, value, agent_name, session_id, detail, created_at)
values ($1, $2, $3, $4, $5, $6, $7, $8);

-- name: total
select coalesce(sum(value), 0)::float8 from risk_event
where risk = $1 and created_at > $4
  and case $2::text when 'agent' then agent_name = $3 when 'session' then session_id = $3 else true end;

-- name: counts
select risk, count(*) as events from risk_event where created_at > $1 group by risk;

-- name: add_mitigation
insert into risk_mitigation (tenant_id, id, risk, text, owner, created_at) values ($1, $2, $3, $4, $5, $6);

-- name: mitigations
select * from (
  select *, row_number() over (partition by risk order by created_at desc, id desc) as place from risk_mitigation
) as numbered
where place <= $1
order by created_at desc, id desc;

-- name: set_rule
insert into enforcement_rule
  (tenant_id, name, risk, threshold, window_span, action, target_kind, hold_span, enabled)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
on conflict (tenant_id, name) do update set risk = excluded.risk, threshold = excluded.threshold,
  window_span = excluded.window_span, action = excluded.action, target_kind = excluded.target_kind,
  hold_span = excluded.hold_span, enabled = excluded.enabled;

-- name: rules
select * from enforcement_rule order by name;

-- name: lock_target
select pg_advisory_xact_lock(hashtextextended($1, 0));

-- name: enforce
insert into enforcement_action
  (tenant_id, id, rule, risk, action, target_kind, target, value, created_at, expires_at)
select $1, $2, $3, $4, $5, $6, $7, $8, $9, $10
where not exists (
  select from enforcement_action where rule = $3 and target = $7 and expires_at > $9
)
returning id;

-- name: actions
select * from enforcement_action
where ($1::timestamptz is null or expires_at > $1) and ($2::text = '' or target = $2)
order by created_at desc, id desc
limit 10000;

-- name: risk_tenants
select risk_tenants() as tenant;

-- name: old_events
select id, created_at, to_jsonb(risk_event) - 'tenant_id' as data from risk_event
where created_at < $1 order by created_at, id limit $2;

-- name: old_actions
select id, created_at, to_jsonb(enforcement_action) - 'tenant_id' as data from enforcement_action
where created_at < $1 and expires_at < $1 order by created_at, id limit $2;

-- name: old_mitigations
select id, created_at, to_jsonb(numbered) - 'tenant_id' - 'place' as data from (
  select *, row_number() over (partition by risk order by created_at desc, id desc) as place from risk_mitigation
) as numbered
where created_at < $1 and place > $3 order by created_at, id limit $2;

-- name: keep_old_risk
insert into risk_archive (tenant_id, kind, id, data, created_at) values ($1, $2, $3, $4, $5) on conflict do nothing;

-- name: forget_risks
select forget_risks($1, $2);

-- name: archived_risks
select kind, id, data, created_at from risk_archive where kind = $1 order by created_at, id;
