-- The ledger: append-only, one entry a generation.
create table cost_event (
  tenant_id text not null,
  id text not null,
  generation_id text not null,
  session_id text not null,
  agent_name text not null,
  provider text not null,
  model text not null,
  tokens_input int not null check (tokens_input >= 0),
  tokens_output int not null check (tokens_output >= 0),
  tokens_cached_input int not null,
  tokens_reasoning int not null,
  estimated boolean not null,
  cost_micros_usd bigint not null check (cost_micros_usd >= 0),
  cost_usd numeric(12, 6) not null,
  price_version text not null,
  created_at timestamptz not null default now(),
  primary key (tenant_id, id),
  unique (tenant_id, generation_id)
);
create index cost_event_time_idx on cost_event (tenant_id, created_at, id);
create index cost_event_session_idx on cost_event (tenant_id, session_id);

create function refuse_change() returns trigger language plpgsql as $$
begin
  raise exception 'the ledger is append-only' using errcode = 'restrict_violation';
end $$;
create trigger cost_event_is_append_only before update or delete or truncate on cost_event
  for each statement execute function refuse_change();
revoke update, delete, truncate on cost_event from agentnet_cost;

-- What is settled in all, so that a reservation need not sum the ledger.
create table spend (
  tenant_id text primary key,
  settled_micros_usd bigint not null
);

create table budget (
  tenant_id text primary key,
  id text not null,
  limit_micros_usd bigint not null check (limit_micros_usd >= 0),
  updated_at timestamptz not null
);

create table lease (
  tenant_id text not null,
  generation_id text not null,
  provider text not null,
  model text not null,
  input_tokens bigint not null,
  micros_usd bigint not null check (micros_usd >= 0),
  expires_at timestamptz not null,
  primary key (tenant_id, generation_id)
);

do $$
declare
  name text;
begin
  foreach name in array array['cost_event', 'spend', 'budget', 'lease'] loop
    execute format('alter table %I enable row level security', name);
    execute format('alter table %I force row level security', name);
    execute format(
      'create policy tenant on %I using (tenant_id = nullif(current_setting(''app.tenant'', true), ''''))', name);
  end loop;
end $$;
