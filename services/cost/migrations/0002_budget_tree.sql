-- The owner migrates every tenant's rows, so row-level security is not forced on it here.
alter table cost_event no force row level security;
alter table budget no force row level security;
alter table spend no force row level security;

-- An entry an attempt, and all that a bill is asked for.
alter table cost_event
  add column team text not null default '',
  add column user_id text not null default '',
  add column sub_agent text not null default '',
  add column turn_id text not null default '',
  add column attempt int not null default 0 check (attempt >= 0),
  add column outcome text not null default 'completed',
  add column tier text not null default '',
  add column region text not null default '',
  add column tokens_cache_write int not null default 0,
  add column images int not null default 0,
  add column tokens_audio_input int not null default 0,
  add column tokens_audio_output int not null default 0,
  add column tokens_embedding int not null default 0,
  add column price_estimated boolean not null default false,
  drop constraint cost_event_tenant_id_generation_id_key,
  add constraint cost_event_attempt_key unique (tenant_id, generation_id, attempt);

-- Whose budget, in which window, and what happens before it is spent. A scope is a level and a name.
alter table budget
  drop constraint budget_pkey,
  add column scope text not null default 'tenant:',
  add column period text not null default 'total' check (period in ('total', 'hour', 'day', 'month')),
  add column soft_limit_micros_usd bigint not null default 0 check (soft_limit_micros_usd >= 0),
  add column soft_action text not null default 'alert' check (soft_action in ('alert', 'downgrade', 'ask')),
  add primary key (tenant_id, id),
  add constraint budget_scope_key unique (tenant_id, scope, period);

-- What a part of a tenant has spent and set aside in one window of one budget.
create table budget_counter (
  tenant_id text not null,
  id bigint generated always as identity,
  budget_id text not null,
  scope text not null,
  period_start timestamptz not null,
  settled_micros_usd bigint not null default 0,
  leased_micros_usd bigint not null default 0,
  approved boolean not null default false,
  primary key (tenant_id, id),
  unique (tenant_id, budget_id, scope, period_start),
  foreign key (tenant_id, budget_id) references budget on delete cascade
) with (fillfactor = 40, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

-- Leases were minutes old at most: they are not carried over.
drop table lease;
create table lease (
  tenant_id text not null,
  generation_id text not null,
  keys text[] not null,
  counters bigint[] not null default '{}',
  certain_millionths numeric not null,
  output_price bigint not null,
  output_tokens bigint not null,
  micros_usd bigint not null check (micros_usd >= 0),
  expires_at timestamptz not null,
  primary key (tenant_id, generation_id)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
create index lease_end_idx on lease (tenant_id, expires_at);

-- Sums by the hour and the day, written with each entry, so that they are right after late ones too.
create table cost_hour (
  tenant_id text not null,
  hour timestamptz not null,
  provider text not null,
  model text not null,
  agent_name text not null,
  entries bigint not null,
  estimated bigint not null,
  tokens_input bigint not null,
  tokens_output bigint not null,
  tokens_cached_input bigint not null,
  tokens_reasoning bigint not null,
  cost_micros_usd bigint not null,
  primary key (tenant_id, hour, provider, model, agent_name)
) with (fillfactor = 70);
create table cost_day (
  tenant_id text not null,
  day timestamptz not null,
  provider text not null,
  model text not null,
  agent_name text not null,
  entries bigint not null,
  estimated bigint not null,
  tokens_input bigint not null,
  tokens_output bigint not null,
  tokens_cached_input bigint not null,
  tokens_reasoning bigint not null,
  cost_micros_usd bigint not null,
  primary key (tenant_id, day, provider, model, agent_name)
) with (fillfactor = 70);

-- Price books as they were imported. The mesh's own stands under the tenant `*`, which everyone may read.
create table price_book (
  tenant_id text not null,
  version text not null,
  document text not null,
  created_at timestamptz not null,
  adopted_at timestamptz not null,
  primary key (tenant_id, version)
);

insert into cost_hour
select tenant_id, date_trunc('hour', created_at, 'UTC'), provider, model, agent_name, count(*),
  count(*) filter (where estimated), sum(tokens_input), sum(tokens_output), sum(tokens_cached_input), sum(tokens_reasoning),
  sum(cost_micros_usd)
from cost_event group by 1, 2, 3, 4, 5;
insert into cost_day
select tenant_id, date_trunc('day', hour, 'UTC'), provider, model, agent_name, sum(entries), sum(estimated),
  sum(tokens_input), sum(tokens_output), sum(tokens_cached_input), sum(tokens_reasoning), sum(cost_micros_usd)
from cost_hour group by 1, 2, 3, 4, 5;
insert into budget_counter (tenant_id, budget_id, scope, period_start, settled_micros_usd)
select b.tenant_id, b.id, b.scope, 'epoch', coalesce(s.settled_micros_usd, 0)
from budget b left join spend s using (tenant_id);
drop table spend;

alter table cost_event force row level security;
alter table budget force row level security;
do $$
declare
  name text;
begin
  foreach name in array array['budget_counter', 'lease', 'cost_hour', 'cost_day', 'price_book'] loop
    execute format('alter table %I enable row level security', name);
    execute format('alter table %I force row level security', name);
    execute format(
      'create policy tenant on %I using (tenant_id = nullif(current_setting(''app.tenant'', true), ''''))', name);
  end loop;
end $$;
create policy mesh on price_book for select using (tenant_id = '*');
